"""Which slot of the cache holds which cells, and who shares them. Pure: the moves it wants are carried out by others.

Invariants, after any order of calls:
- a slot that holds a node's cells holds those of every node above it, and all that are computed;
- a node's tokens are computed once, by its oldest user (`writer`); younger users wait and then copy, so that requests
  which arrive together with one beginning compute it together;
- `pledged` is what the running sequences' nodes need when all is computed, `held` what the cache holds now;
- cells that a running sequence needs are never given up: only what is kept for later is evicted, the longest unused
  first, from its end;
- a node is in the cache, or planned, or in memory (`prefix_store`); below one in memory that nobody uses, all are.

Order: `enter` a sequence → each step: `ready`, `make_room`, `take_moves` → the moves, the decode → `note_computed` →
`leave`, which keeps the cells under the same slot.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import takewhile

from services.miner.engine.cache_moves import Copy, Cut, Move, SwapIn
from services.miner.engine.prefix_store import PrefixStore
from services.miner.engine.prefix_tree import Match, Node, make_root, match
from services.miner.engine.sequence import Sequence

MAX_SLOTS = 256  # llama.cpp makes no context for more
MAX_STORING_SLOTS = MAX_SLOTS - 1  # one more is needed to take things in and out of memory
MIN_SLOTS, SLOTS_A_SEQUENCE = 32, 4
EVICTION_CELLS = 64  # at least so many at a time, so that a full cache does not evict in every step
EXPIRY_STEP = 256  # computed tokens between two looks for what is kept too long, fewer where the horizon is nearer
PROVEN_FACTOR = 8  # what served a second request is kept so much longer
SHORTENED, LENGTHENED = 0.9, 1.5  # the horizon of the rest, by what expired unused and by what did not: even at 1 in 5
SHORTEST, LONGEST = 1 / 8, 8  # of the horizon at the start


def slot_count(sequences: int) -> int:
    """Return how many slots there are for sequences that run and prefixes that are kept."""
    return max(sequences, min(MAX_STORING_SLOTS, max(MIN_SLOTS, SLOTS_A_SEQUENCE * sequences)))


class PrefixCache:
    """The slots and cells of one unified cache. `horizon`: computed tokens for which something unused is kept at first.

    A kept cell costs something in every step (attention walks over it) and saves computing it again, so what nobody
    asks for must go: the sooner the less was asked for lately. Time does not count, so that an idle engine forgets
    nothing. With room to store, what goes lies in memory and comes back when it is asked for. `sharing` off: nothing is
    shared or kept, for memory that cannot drop a suffix.
    """

    def __init__(self, *, cells: int, slots: int, horizon: int, stored: int = 0, sharing: bool = True) -> None:
        self.cells = cells
        self.pledged = 0
        self.held = 0
        self._sharing = sharing
        self._start_horizon = horizon
        self._horizon: float = horizon
        self._root = make_root()
        self._store = PrefixStore(stored)
        self._kept: dict[int, Node] = {}  # slot -> the last node that it holds
        self._free_slots = list(range(slots - 1, -1, -1))
        self._moves: list[Move] = []
        self._clock = 0  # computed tokens
        self._looked_at = 0

    @property
    def root(self) -> Node:
        """The tree of all that is held or planned, for tests and reports."""
        return self._root

    @property
    def kept(self) -> dict[int, Node]:
        """The slots that no running sequence has, with the node where each ends."""
        return self._kept

    @property
    def stored(self) -> int:
        """Tokens whose keys and values take room in memory."""
        return self._store.held

    def needs(self, sequence: Sequence) -> int:
        """Return how many tokens of it no running sequence has pledged room for."""
        found = self._match(sequence)
        used = next((node.end for node in found.node.upwards() if node.users), 0)
        if found.part is not None and found.part.users and used == found.node.end:
            used += found.count
        return len(sequence.tokens) - used

    def enter(self, sequence: Sequence) -> None:
        """Give the sequence a slot and its place in the tree; raises ValueError when every slot runs."""
        slot = self._take_slot(sequence)
        found = self._match(sequence)
        parent = found.node if found.part is None else found.part.split(found.count)
        if found.part is None and any(parent is user.leaf for user in parent.users):
            parent = parent.split(len(parent.tokens))  # a running sequence goes on growing below it
        for node in parent.upwards():
            if not node.users:
                self.pledged += len(node.tokens)
                if not node.proven:
                    self._stretch(LENGTHENED)
            node.users.add(sequence)
            node.proven = True
            if node.blob is not None and node.writer is None:
                node.writer = sequence
        leaf = Node(parent.end, sequence.tokens[parent.end :], parent, users={sequence}, writer=sequence)
        parent.children.append(leaf)
        self.pledged += len(leaf.tokens)
        sequence.slot, sequence.leaf, sequence.computed, sequence.in_rows = slot, leaf, 0, 0

    def ready(self, sequence: Sequence) -> int:
        """Let the sequence hold what others computed of it; return how many tokens it may compute itself now.

        0: another one is computing what it needs next.
        """
        path = [node for node in _leaf(sequence).upwards() if node.end > sequence.computed][::-1]
        self._swap_in(path, sequence)
        complete = list(takewhile(lambda node: node.complete, path))
        if complete and complete[-1].end > sequence.computed:
            self._share(complete[-1], sequence)
        # What lies in memory comes back, and is not computed, once all above it is there.
        own = takewhile(lambda node: node.writer is sequence and node.blob is None, path[len(complete) :])
        return sum(len(node.tokens) - node.computed for node in own)

    def note_computed(self, sequence: Sequence, count: int) -> None:
        """Take note that the cache holds `count` more tokens of the sequence, under its slot."""
        node, start = _leaf(sequence), sequence.computed
        sequence.computed = end = start + count
        if end > node.end:
            self.pledged += end - node.end
            node.tokens.extend(sequence.tokens[node.end : end])
        for each in node.upwards():
            computed = min(end, each.end) - each.start
            if computed > each.computed:
                self.held += computed - each.computed
                each.computed = computed
                each.slots.add(_slot(sequence))
            if each.start <= start:
                break
        self._clock += count

    def leave(self, sequence: Sequence) -> None:
        """End, cancel or preempt: what the sequence computed is kept under its slot, unless another holds it all."""
        slot, leaf = _slot(sequence), _leaf(sequence)
        for node in list(leaf.upwards()):
            node.users.discard(sequence)
            if node.users:
                self._hand_on(node, sequence, slot)
            else:
                self._close(node)
        sequence.slot, sequence.leaf, sequence.computed = None, None, 0
        last = next((node for node in leaf.upwards() if slot in node.slots), None)
        if last is None or not self._sharing or len(last.slots) > 1:
            self._release(slot, last)
        else:
            self._keep(slot, last)

    def make_room(self, count: int) -> None:
        """Evict what is kept until `count` more tokens fit, or nothing is left to evict."""
        while (missing := self.held + count - self.cells) > 0 and self._evict(missing):
            pass

    def evict_all(self) -> bool:
        """Give up everything that is kept; False when nothing was."""
        before = self.held
        while self._evict(self.cells):
            pass
        return self.held < before

    def expire(self) -> None:
        """Give up what was kept for longer than it is worth."""
        if self._clock - self._looked_at < min(EXPIRY_STEP, self._start_horizon):
            return
        self._looked_at = self._clock
        while (overdue := next(filter(self._is_overdue, self._kept_ends()), None)) is not None:
            if not overdue.proven:
                self._stretch(SHORTENED)
            self._give_up(overdue)

    def take_moves(self) -> tuple[Move, ...]:
        """Return what has to be done to the cells before the next decode, and forget it."""
        moves, self._moves = tuple(self._moves), []
        return moves

    # --- sharing ---------------------------------------------------------------------------------------------------

    def _match(self, sequence: Sequence) -> Match:
        """Without its last token, which has to be computed for its logits."""
        shared = self._sharing and sequence.reuses and not sequence.embeds
        return match(self._root, sequence.tokens, len(sequence.tokens) - 1 if shared else 0)

    def _share(self, node: Node, sequence: Sequence) -> None:
        """Let the sequence's slot hold everything down to `node`, of which all is computed."""
        slot, end = _slot(sequence), node.start + node.computed
        if slot not in node.slots:
            self._moves.append(Copy(min(node.slots), slot, sequence.computed, end))
            for each in node.upwards():
                each.slots.add(slot)
        if not sequence.generated:
            sequence.reused += end - sequence.computed
        sequence.computed = end

    def _swap_in(self, path: list[Node], sequence: Sequence) -> None:
        """Bring back from memory what comes next on the sequence's path, as far as it is the one to do that."""
        for node in path:
            if node.complete:
                continue
            if node.blob is None or node.writer is not sequence:
                return
            self.make_room(node.blob.size)
            if self.held + node.blob.size > self.cells:
                self._moves += self._store.drop(node)  # no room to unpack it: the sequence computes it
                return
            if node.start > sequence.computed and node.parent is not None:
                self._share(node.parent, sequence)
            slot = _slot(sequence)
            self._moves += [SwapIn(node.blob.key, slot, node.start, node.end), *self._store.drop(node)]
            node.computed, node.slots = len(node.tokens), {slot}
            self.held += node.computed
            if not sequence.generated:
                sequence.reused += node.computed
            sequence.computed = node.end

    def _hand_on(self, node: Node, leaver: Sequence, slot: int) -> None:
        """Let the oldest other user go on with what `leaver` was computing."""
        if node.writer is not leaver:
            return
        node.writer = heir = min(node.users, key=lambda user: user.order)
        if node.complete or not node.computed:
            return
        # Only its writer holds a node that is not complete: the heir alone, from now on.
        self._share(node, heir)
        node.slots.discard(slot)
        self._moves.append(Cut(slot, node.start))

    def _close(self, node: Node) -> None:
        """Take note that no running sequence uses the node any more; what was only planned is forgotten."""
        self.pledged -= len(node.tokens)
        node.writer = None
        node.used_at = self._clock
        if node.blob is not None:
            return
        if not node.complete:
            self._forget_below(node)
            del node.tokens[node.computed :]
        if not node.tokens:
            node.unlink()

    # --- keeping and giving up ---------------------------------------------------------------------------------------

    def _keep(self, slot: int, last: Node) -> None:
        above = set(last.upwards())
        for other, node in list(self._kept.items()):
            if node in above or (node.parent is last.parent and _repeats(node, last)):
                self._release(other, node)  # the new one holds all of it, too
        self._kept[slot] = last

    def _take_slot(self, sequence: Sequence) -> int:
        """Return a free slot; where there is none, that of the longest unused, but not of what the sequence needs."""
        if not self._free_slots:
            found = self._match(sequence)
            needed = (found.part or found.node).slots
            if not self._kept:
                raise ValueError("every slot has a running sequence")
            self._give_up_slot(min(self._kept, key=lambda slot: (slot in needed, self._kept[slot].used_at)))
        return self._free_slots.pop()

    def _release(self, slot: int, last: Node | None) -> None:
        """Let the slot hold nothing; what a running sequence still has to copy from it is copied first."""
        nodes = [] if last is None else list(last.upwards())
        needed = next((node for node in nodes if node.users and node.slots == {slot}), None)
        if needed is not None:
            self._share(needed, min(needed.users, key=lambda user: user.order))
        for node in nodes:
            node.slots.discard(slot)
            if not node.slots and not node.users:
                self.held -= node.computed
                self._forget_below(node)
                node.unlink()
        if nodes:
            self._moves.append(Cut(slot, 0))
        self._kept.pop(slot, None)
        self._free_slots.append(slot)

    def _evict(self, wanted: int) -> bool:
        """Give up some of what was of no use for the longest time; False when nothing is kept."""
        node = min(self._kept_ends(), key=lambda node: node.used_at, default=None)
        if node is None:
            return False
        count = max(wanted, EVICTION_CELLS)
        if self._store.limit or count >= node.computed:
            self._give_up(node)
        else:
            self._shorten(node, count)
        return True

    def _kept_ends(self) -> Iterator[Node]:
        """Yield the nodes below which the cache holds nothing."""
        for node in self._kept.values():
            if not node.users and not any(child.computed or child.users for child in node.children):
                yield node

    def _is_overdue(self, node: Node) -> bool:
        horizon = self._start_horizon * PROVEN_FACTOR if node.proven else self._horizon
        return self._clock - node.used_at >= horizon

    def _stretch(self, factor: float) -> None:
        wanted = self._horizon * factor
        self._horizon = min(max(wanted, self._start_horizon * SHORTEST), self._start_horizon * LONGEST)

    def _shorten(self, node: Node, count: int) -> None:
        """Give up the last `count` tokens of the end of a kept run, but not all."""
        node.computed -= count
        self._forget_below(node)
        del node.tokens[node.computed :]
        self.held -= count
        self._moves += [Cut(slot, node.end) for slot in sorted(node.slots)]

    def _give_up(self, node: Node) -> None:
        """Let the cells of the end of a kept run go, to memory where there is room for them."""
        self._moves += self._store.put(node)
        self.held -= node.computed
        node.computed = 0
        if node.blob is None:
            self._forget_below(node)
            node.unlink()
        slots, node.slots = sorted(node.slots), set()
        for slot in slots:
            self._moves.append(Cut(slot, node.start))
            if node.parent in {None, self._root} or len(node.parent.slots) > 1:
                self._release(slot, node.parent)
            else:
                self._kept[slot] = node.parent

    def _give_up_slot(self, slot: int) -> None:
        """Free a kept slot; what it holds alone goes to memory."""
        while (node := self._kept.get(slot)) is not None:
            if node.users or len(node.slots) > 1:
                self._release(slot, node)
            else:
                self._give_up(node)

    def _forget_below(self, node: Node) -> None:
        """Forget what lies in memory and can be of no use without the node."""
        for child in list(node.children):
            self._forget_below(child)
            self._moves += self._store.drop(child)
            child.unlink()


def _repeats(node: Node, other: Node) -> bool:
    """Whether `other` holds all that `node` does, in cells of its own, and nothing goes on from `node`."""
    return (
        not node.children
        and not node.users
        and other.computed >= node.computed
        and other.tokens[: node.computed] == node.tokens
    )


def _slot(sequence: Sequence) -> int:
    if sequence.slot is None:
        raise ValueError(f"{sequence.request_id} holds no slot")
    return sequence.slot


def _leaf(sequence: Sequence) -> Node:
    if sequence.leaf is None:
        raise ValueError(f"{sequence.request_id} has no place in the tree")
    return sequence.leaf

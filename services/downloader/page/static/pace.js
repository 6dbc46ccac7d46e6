// How fast the verifier reads, of which the status has no rate: the change of its bytes over the last seconds.
const SECONDS = 10;

export class Pace {
  #seen = new Map();

  note({ sha256, hashed_bytes: bytes }) {
    const now = performance.now() / 1000;
    const seen = (this.#seen.get(sha256) ?? []).filter((one) => now - one.now < SECONDS);
    if (seen.length && bytes < seen.at(-1).bytes) seen.length = 0; // it began anew
    if (bytes !== seen.at(-1)?.bytes) seen.push({ now, bytes });
    this.#seen.set(sha256, seen);
  }

  // Return [bytes per second, seconds until all `expected` bytes are read], or nothing while nobody knows.
  of({ sha256, expected_bytes: expected }) {
    const seen = this.#seen.get(sha256) ?? [];
    if (seen.length < 2) return [];
    const [first, last] = [seen[0], seen.at(-1)];
    const rate = (last.bytes - first.bytes) / (last.now - first.now);
    if (!(rate > 0)) return [];
    return [rate, expected ? Math.max(expected - last.bytes, 0) / rate : null];
  }
}

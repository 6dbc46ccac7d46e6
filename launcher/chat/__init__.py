"""`r3mes chat`: lines become questions (*lines*), questions and answers a *conversation*; *session* runs it."""

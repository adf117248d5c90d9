"""The losses of AnyTalk, each with the reduction that its weight was chosen for (supplement, B.2 and C.1)."""

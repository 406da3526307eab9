"""The pages of JointRegSeg's panel, one file each, and what its self-test does with them; they know Qt."""

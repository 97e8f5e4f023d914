"""What runs in a virtual machine's guest, as its first process: it serves the calls of `frames`.

Rules of this package: it imports the standard library, `frames` and itself, nothing else, since nothing else is in the
guest; and of the standard library only what is worth its time, since every import costs the start of a machine tens of
milliseconds where the processor is emulated. One thread and one `Loop`; what has to wait is a generator. Paths are
the guest's.
"""

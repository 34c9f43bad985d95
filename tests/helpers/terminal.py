"A terminal for tests: what is printed goes through a real pty, so that `isatty()` is true and bars are drawn"
import os, pty, runpy, sys, threading
from contextlib import contextmanager

@contextmanager
def terminal():
    "Gives a list of what was printed, complete once the block is left"
    main,sub = pty.openpty()
    said,old = [],(sys.stdout,sys.stderr)
    def drain():
        try:
            while o := os.read(main, 65536): said.append(o.decode(errors='replace'))
        except OSError: pass                                                   # Linux says so when the other end is closed
    t = threading.Thread(target=drain); t.start()
    out = os.fdopen(sub, 'w', buffering=1)
    sys.stdout = sys.stderr = out
    try: yield said
    finally:
        sys.stdout,sys.stderr = old
        out.close(); t.join(); os.close(main)

def in_terminal(module, *args):
    "A command as typed: exit code, and what the terminal shows"
    argv,sys.argv = sys.argv,[module.rpartition('.')[2], *map(str, args)]
    try:
        with terminal() as said:
            try: runpy.run_module(module, run_name='__main__'); code = 0
            except SystemExit as e: code = e.code or 0
    finally: sys.argv = argv
    return code,''.join(said)

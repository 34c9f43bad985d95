"`python -m rotnb.cli NAME ...` is `rotnb NAME ...`, as torchrun wants it"
from .rotnb import main

if __name__=='__main__': main()

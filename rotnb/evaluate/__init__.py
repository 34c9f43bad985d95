"Average precision, curves and errors of rotated detections: `from rotnb.evaluate import eval_map`"
__all__ = ['APAccumulator','eval_map']

def __getattr__(name):
    "`eval_map` and `APAccumulator`, imported when asked for: readers of labels need `evaluate.protocols` alone"
    if name not in __all__: raise AttributeError(f'module {__name__!r} has no attribute {name!r}')
    from . import accumulator
    return getattr(accumulator, name)

def __dir__(): return [*globals(), *__all__]

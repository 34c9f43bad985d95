"""What the average of the weights costs and gains, and what `Resume` costs, in real trainings:
`OMP_NUM_THREADS=1 NUMBA_NUM_THREADS=1 python aids.py --data SSDD --json aids.json`.

Fifty windows of SSDD, as in few_images.py, are learnt by the recipe `few_images`, whose rate falls along a cosine, and with the rate
flat to the end. The average does not change the training, so one run has both: the same windows of the test set are measured with the
weights of the last step and with their average. Cost is the processor time spent in the callback beside that of the whole fit. Rows are
written one by one, and a run that is there is not done again."""
import tempfile, time
from few_images import TrainOnly, arguments, rows_of, windows
from rotnb.all import *

def clocked(kind):
    "The kind of callback, with the processor time that was spent in it as `spent`"
    class Timed(kind):
        spent = 0.
        def __call__(self, event_name):
            start = time.process_time()
            try: return super().__call__(event_name)
            finally: self.spent += time.process_time()-start
    return type(kind.__name__, (Timed,), {})

def measured(learn):
    with learn.no_bar(), learn.no_logging(): _,map50,map = learn.validate()
    return dict(mAP50=round(float(map50), 4), mAP50_95=round(float(map), 4))

def trained(rate, seed, train, valid, args):
    "Figures of one training"
    set_seed(seed)
    dls = RotatedDataLoaders.from_annots(windows(train, args.few, seed), valid, ['ship'], size=128, bs=4)
    ema,keep = clocked(EMA)(decay=args.decay, warmup=args.warmup),clocked(Resume)(tempfile.mkdtemp()+'/run')
    last = {}
    class Last(Callback):
        "The weights of the last step, before the average takes their place"
        order = 65
        def after_train(self): last.update({key:value.clone() for key,value in self.model.state_dict().items()})
    learn = rotated_learner(dls, weights=args.weights, run=False, metrics=[], cbs=[TrainOnly(),ema,keep,Last()])
    start = time.process_time()
    with learn.no_bar(), learn.no_logging(): learn.fit_recipe('few_images', epochs=args.epochs, **(dict(end=1.) if rate=='flat' else {}))
    seconds,steps = time.process_time()-start,args.epochs*len(dls.train)
    learn.remove_cbs(learn.cbs.filter(lambda cb: cb.name in ('train_only','ema','resume','last')))
    learn.metrics = [RotatedMAP(), RotatedMAP('coco')]
    average = measured(learn)
    learn.model.load_state_dict(last)
    return dict(rate=rate, seed=seed, steps=steps, seconds=round(seconds, 1), ema_share=round(ema.spent/seconds, 4),
                ema_ms_a_step=round(1e3*ema.spent/steps, 3), resume_share=round(keep.spent/seconds, 4),
                average=average, last=measured(learn))

if __name__=='__main__':
    p = arguments(__doc__, valid=(100,'windows to measure on'), decay=(.98,'of the average: that of many steps would not have begun'),
                  warmup=(20.,'steps of its warm-up'))
    p.add_argument('--seeds', type=int, nargs='+', default=[0,1], help='two runs for each')
    p.add_argument('--json', default='aids.json', help='file to write, and to go on with')
    args = p.parse_args()
    cases = [dict(rate=rate, seed=seed) for seed in args.seeds for rate in ('flat','cosine')]
    rows_of(args, cases, trained, ('few','epochs','valid','weights','decay','warmup'))

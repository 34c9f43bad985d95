"""The weights that come with the package, from the folder that rotnb-demo left:

    rotnb-demo --path DEMO --model rotated_fcos_tiny --n-train 480
    python .ci/weights.py DEMO rotated_fcos_tiny_synth

measures the detector on the demo's validation scenes with numbers of 32 and of 16 bits, and writes rotnb/weights/NAME.* with 16 bits
if no figure changes by more than three thousandths"""
import json, sys, tempfile
from pathlib import Path
from rotnb.cli.demo_run import demo_loaders
from rotnb.cli.recipe import recipe
from rotnb.learn.learner import KeepNormalize, open_learner, rotated_learner
from rotnb.learn.metrics import RotatedMAP
from rotnb.models.weights import save_weights

ROOT = Path(__file__).parents[1]

def stats_of(learn): # of a learner exported before detectors knew theirs
    norm = next(cb.norm for cb in learn.cbs if isinstance(cb, KeepNormalize))
    return [[round(float(value), 6) for value in part.flatten()] for part in (norm.mean,norm.std)]

def measured(file, dls):
    "mAP of weights on the scenes that were held out"
    learn = rotated_learner(dls, weights=file, metrics=[RotatedMAP(), RotatedMAP('coco')])
    with learn.no_bar(), learn.no_logging(): learn.validate()
    return {key:round(float(metric.compute().map), 4) for key,metric in zip(('mAP50','mAP50_95'), learn.metrics)}

def main(demo, name):
    run,learn = json.loads((demo/'metrics.json').read_text()),open_learner(demo/'model.pkl', 'cpu')
    chosen,model = run['settings'],learn.model
    model.stats,model.options = model.stats or stats_of(learn),model.options or dict(angle=model.angle, backbone=model.backbone.name)
    other = [f"--{key.replace('_','-')} {value}" for key,value in chosen.items() if key in recipe and value not in (None,recipe[key])]
    command,done = ' '.join(['rotnb-demo', *other]),len(run['history'])
    if done<chosen['epochs']: command += f" (the first {done} of {chosen['epochs']} epochs)"
    notes = dict(data=f"{chosen['n_train']} synthetic scenes of make_synth", size=[chosen['size'] or recipe['size']]*2,
                 licence='Apache-2.0', source='the rotnb authors', command=command, seed=chosen['seed'],
                 epochs=done, seconds=run['seconds'], measured_on=f"{chosen['n_valid']} scenes held out",
                 made_with=run['versions'])
    dls = demo_loaders(n_train=chosen['n_train'], n_valid=chosen['n_valid'])
    with tempfile.TemporaryDirectory() as tmp:
        found = [measured(save_weights(model, Path(tmp)/str(half), half), dls) for half in (False,True)]
    print('32 bits:', found[0], '16 bits:', found[1], 'the demo:', {key:run[key] for key in found[0]})
    half = all(abs(found[0][key]-found[1][key])<=.003 for key in found[0])
    file = save_weights(model, ROOT/'rotnb/weights'/name, half, metrics=found[half], bits=16 if half else 32, **notes)
    print(file, f'{file.stat().st_size/1e6:.2f} MB')

if __name__=='__main__': main(Path(sys.argv[1]), sys.argv[2])

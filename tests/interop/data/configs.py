"""All configurations of MMRotate 0.3.4 (main b030f38) and 1.x (dev-1.x 3ff004e), resolved: their models and test pipelines.

    python configs.py MAIN DEV

MAIN and DEV are the folders `configs` of the two lines; mmengine (0.10.7) resolves `_base_`. Written is configs.json.gz beside this file.
One is left out, gwd/rotated-retinanet-rbox-le135_r50_fpn_gwd_1x_dota.py of 1.x: its `_base_` does not exist, so MMRotate cannot
read it."""
import gzip, json, sys
from pathlib import Path
from mmengine.config import Config

def parts(cfg):
    if 'data' in cfg and 'test_dataloader' not in cfg: tested = dict(data=dict(test=dict(pipeline=cfg['data']['test']['pipeline'])))
    else: tested = dict(test_dataloader=dict(dataset=dict(pipeline=cfg['test_dataloader']['dataset']['pipeline'])))
    return dict(model=cfg['model'], **tested)

out = {}
for line,folder in zip(('0.x','1.x'), sys.argv[1:]):
    for file in sorted(Path(folder).rglob('*.py')):
        if '_base_' in file.parts: continue
        try: out[f'{line}/{file.relative_to(folder)}'] = parts(Config.fromfile(str(file), import_custom_modules=False)._cfg_dict.to_dict())
        except FileNotFoundError as e: print(file, e)
text = json.dumps(out, separators=(',',':'))
(Path(__file__).parent/'configs.json.gz').write_bytes(gzip.compress(text.encode(), 9, mtime=0))
print(len(out))

"FiftyOne 1.22.1: `COCODetectionDatasetImporter` through `Dataset.from_dir`, outlines as polylines"
import json, sys
from pathlib import Path
import fiftyone as fo

root = Path(sys.argv[1]); file = next(root.rglob('*.json'))
data = fo.Dataset.from_dir(dataset_type=fo.types.COCODetectionDataset, data_path=str(root/'images'), labels_path=str(file), label_types='segmentations', use_polylines=True)
res = {}
for s in data:
    s.compute_metadata(); w,h = s.metadata.width,s.metadata.height
    lines = next((s[f].polylines for f in s.field_names if hasattr(s[f], 'polylines')), [])
    res[Path(s.filepath).stem] = [[p.label, *[v for x,y in p.points[0][:4] for v in (x*w,y*h)], int(p['ignore']) if p.has_attribute('ignore') or 'ignore' in p.field_names else 0] for p in lines]
print(json.dumps(res))

"Datumaro 1.13.12: `Dataset.import_from` of a format; turned boxes and polygons as corners"
import json, math, sys
import datumaro as dm

def corners(a):
    "Corners of a turned box or a polygon"
    if a.type==dm.AnnotationType.rotated_bbox:
        c,s = math.cos(math.radians(a.r)),math.sin(math.radians(a.r))
        return [v for x,y in ((-1,-1),(1,-1),(1,1),(-1,1)) for v in (a.cx+c*x*a.w/2-s*y*a.h/2, a.cy+s*x*a.w/2+c*y*a.h/2)]
    return list(a.points)

data = dm.Dataset.import_from(sys.argv[1], sys.argv[2]); names = data.categories()[dm.AnnotationType.label]
def is_difficult(a): return a.attributes.get('difficult', a.attributes.get('difficulty', 0)) in (True,'true',1)
def rows(item): return [[names[a.label].name, *corners(a), int(is_difficult(a))] for a in item.annotations]
print(json.dumps({o.id.split('/')[-1]: rows(o) for o in data}))

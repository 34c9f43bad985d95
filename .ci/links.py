"""After notebooks were renumbered: `python .ci/links.py` lets links to them follow, in notebooks and pages.

A link `models/05_dense_head.ipynb` that leads nowhere is given the number that `dense_head` has now in that folder."""
import re
from pathlib import Path
from fastcore.nbio import read_nb, write_nb

ROOT = Path(__file__).parents[1]

def followed(text, folder):
    "`text` with its links to renumbered notebooks put right, as seen from `folder`"
    def now(m):
        link,name = m[1],re.fullmatch(r'\d\d(_\w+\.ipynb)', Path(m[1]).name)
        if not name or (folder/link).exists(): return m[0]
        found = list((folder/link).parent.glob(f'[0-9][0-9]{name[1]}'))
        return m[0].replace(link, str(Path(link).with_name(found[0].name))) if len(found)==1 else m[0]
    text = re.sub(r'\]\(([^)\s#]+)', now, text)
    return re.sub(r'(\[`?\w+/)\d\d(_\w+`?\]\([^)\s]*/(\d\d)_)', r'\1\3\2', text)     # what the link says, too

def follow(file):
    "Mend the links of a notebook, docstrings' too, or of a page; whether there were any"
    if file.suffix=='.md':
        old = file.read_text(encoding='utf-8')
        if (new := followed(old, file.parent))!=old: file.write_text(new, encoding='utf-8')
        return new!=old
    nb,changed = read_nb(file),False
    for c in nb.cells:
        new = followed(c.source, file.parent)
        changed,c.source = changed or new!=c.source,new
    if changed: write_nb(nb, file)
    return changed

if __name__=='__main__':
    pages = [*ROOT.glob('*.md'), *(ROOT/'nbs').rglob('*.md'), *(ROOT/'nbs').rglob('*.ipynb')]
    for f in sorted(pages):
        if '.ipynb_checkpoints' not in f.parts and follow(f): print(f.relative_to(ROOT))

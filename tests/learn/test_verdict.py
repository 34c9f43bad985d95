"What a report says in words, and what it keeps for the next one"
import html, json
import pytest
from rotnb.learn.verdict import KEPT, compared, read_facts, same_set, totals, verdict, with_earlier

def row(objects, found, reported, ap50=.5): return dict(objects=objects, found=found, reported=reported, ap50=ap50)
def facts(images=40, **kw):
    classes = kw.pop('classes', dict(ship=row(240,171,190), harbor=row(9,0,4), plane=row(30,29,31)))
    about = dict(score=.35, iou=.5, map50=.7, interval=[.65,.75], weights='a', detector='d', made='2026-01-01')
    return {**about, 'classes':classes, 'images':images, **kw}

@pytest.mark.parametrize('classes,said', [
    (dict(ship=row(0,0,9)), ['No ground truth counts in these 40 images']),
    (dict(ship=row(60,0,9)), ['Finds none of 60 objects of class ship.']),
    (dict(ship=row(60,2,90), plane=row(40,0,0)), ['next to nothing: 2 of 100 objects']),
    (dict(ship=row(1000,999,1000)), ['Finds 99.9 % of 1,000 objects','0.1 % of what it reports']),
    (dict(ship=row(100,90,100), harbor=row(9,0,0)), ['weak on harbor (0 of 9)']),
    (dict(ship=row(100,80,90), plane=row(50,40,200)), ['Most of what it reports is wrong for plane (160 of 200)']),
    (dict(ship=row(10,9,9), plane=row(0,0,3)), ['few objects','Nothing is known about plane']),
    (dict(ship=row(60,60,60), **{f'c{i}':row(0,0,0) for i in range(9)}), ['c0, c1, c2 and 6 more'])])
def test_sentences(classes, said):
    text = ' '.join(verdict(facts(classes=classes)))
    assert all(part in text for part in said) and 'nan' not in text and 'None' not in text, text

def test_totals_without_anything():
    assert totals(facts(classes={}))==dict(objects=0, found=0, reported=0, recall=None, precision=None)
    assert verdict(facts(classes={}))

@pytest.mark.parametrize('kw,said', [
    (dict(map50=.6), '0.100 more than'), (dict(map50=.8), '0.100 less than'), (dict(map50=.7), 'the same as'),
    (dict(map50=.72), 'can be chance'), (dict(images=41, map50=.1), 'other images'), (dict(map50=None), '')])
def test_comparison(kw, said):
    text = compared(facts(), facts(**kw))
    assert said in text and bool(text)==bool(said)

def page(tmp_path, content):
    file = tmp_path/'r.html'
    file.write_text(f'<!doctype html><meta name="{KEPT}" content="{html.escape(content)}"><p>x')
    return file

def test_what_a_page_keeps_comes_back(tmp_path):
    kept = with_earlier(facts(weights='b'), [facts(classes={'<"&\'>':row(1,1,1)})])
    assert read_facts(page(tmp_path, json.dumps(kept)))==kept and not same_set(*kept)

@pytest.mark.parametrize('content', ['', '{', '[1]', '{"a":1}', '[{"map50":1}]', 'null'])
def test_other_pages_keep_nothing(tmp_path, content):
    assert read_facts(page(tmp_path, content))==[]
    assert read_facts(tmp_path/'none.html')==[] and read_facts(tmp_path)==[]
    (tmp_path/'b.html').write_bytes(b'\x00\xff<meta name='+KEPT.encode())
    assert read_facts(tmp_path/'b.html')==[]

def test_the_list_has_an_end_and_no_twins():
    kept = []
    for i in range(30): kept = with_earlier(facts(weights=str(i)), kept)
    assert len(kept)==20 and kept[-1]['weights']=='29'
    again = with_earlier(facts(weights='29', map50=.1), kept)
    assert len(again)==20 and again[-1]['map50']==.1

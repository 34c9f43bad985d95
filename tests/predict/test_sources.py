"What people have, as images: files, folders, patterns, addresses, pixels; an address is fetched whole or not at all"
import io, threading, time
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
import numpy as np, pandas as pd, pytest, torch
from fastcore.basics import AttrDict
from fastcore.foundation import L
from PIL import Image
from rotnb.data.images.windows import Window, open_scene
from rotnb.data.labels.records import Annot
from rotnb.predict import sources as S
from rotnb.data.labels import download
from rotnb.data.labels.download import DownloadError
from rotnb.predict.sources import fetch_image, find_images, image_list, is_one_image, named_images, one_image
from terminal import terminal

PX = np.random.default_rng(0).integers(0, 255, (20,30,3)).astype(np.uint8)

@pytest.fixture
def folder(tmp_path):
    top = tmp_path/'pics [new]'
    for name in ('s1.png','s2.jpg','s10.png','.hidden.png','deep/s3.tif','deep/.cache/x.png'):
        (top/name).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(PX).save(top/name)
    (top/'notes.txt').write_text('no image')
    return top

def names(source): return [o.name for o in image_list(source)]

def test_folders_and_patterns(folder, monkeypatch):
    assert names(folder)==names(str(folder))==['s3.tif','s1.png','s2.jpg','s10.png']
    monkeypatch.chdir(folder)
    assert names('*.png')==['s1.png','s10.png'] and names('s?.*')==['s1.png','s2.jpg'] and names('**/*.tif')==['s3.tif']
    assert names('s[12].*')==['s1.png','s2.jpg'] and names('.')==['s3.tif','s1.png','s2.jpg','s10.png']
    monkeypatch.setenv('HOME', str(folder.parent))
    assert names('~/pics [new]/s1.png')==['s1.png'] and names('~/pics*/*.jpg')==['s2.jpg']
    for pattern,words in [('*.txt','no image fits, of 1'), ('*.bmp','nothing that fits'), ('none','no such image'), ('none/','no such')]:
        with pytest.raises(FileNotFoundError, match=words): image_list(pattern)
    (folder/'empty').mkdir()
    with pytest.raises(FileNotFoundError, match='no images'): image_list('empty')

def test_lists_of_all_sorts(folder):
    file = folder/'s1.png'
    for several in ([file, str(file)], (file, file), L(file, file), np.array([str(file)]*2), pd.Series([str(file)]*2),
                    (o for o in (file, file)), [folder/'s10.png', [file]]):
        assert len(image_list(several))==2
    assert names(pd.DataFrame(dict(a=[str(file)])).a)==['s1.png'] and image_list([])==[]
    assert [o.shape for o in image_list(np.stack([PX,PX]))]==[PX.shape]*2
    assert [o.shape for o in image_list(torch.zeros(2,3,8,9))]==[(3,8,9)]*2
    annot = Annot(file, np.zeros((0,4,2)), [], np.zeros(0, int))
    assert names([annot,annot])==['s1.png']*2 and names(annot)==['s1.png']

def test_one_image_stays_what_it_is(folder):
    file = folder/'s1.png'
    for one in (PX, PX[...,0], torch.zeros(3,8,9), Image.open(file), open_scene(PX), Window(open_scene(PX), 0, 0, 9, 9)):
        assert is_one_image(one) and image_list(one)[0] is one
    for data in (file.read_bytes(), io.BytesIO(file.read_bytes())): assert is_one_image(data) and (image_list(data)[0]==PX).all()
    assert is_one_image(file) and is_one_image(str(file)) and is_one_image('https://a.b/c.png') and is_one_image('none.png')
    for several in (folder, str(folder), f'{folder.parent}/*/*.png', [file], torch.zeros(1,3,8,9)): assert not is_one_image(several)

@pytest.mark.parametrize('source', [None, 3, 1.5, {}, dict(a='x.png'), [3], np.float32(2), torch.tensor(1.), object(),
                                    np.zeros(3), [None]])
def test_what_is_no_image(source):
    with pytest.raises(TypeError, match='expected an image, a folder'): image_list(source)

def test_a_table_is_asked_for_its_column():
    with pytest.raises(TypeError, match='one of file, n'): image_list(pd.DataFrame(dict(file=['a'], n=[1])))

def test_several_where_one_is_wanted(folder):
    assert one_image(folder/'s1.png', 'f')==folder/'s1.png' and one_image([PX], 'f') is PX and one_image(folder/'deep', 'f').name=='s3.tif'
    with pytest.raises(ValueError, match='4 images, expected one: predict_folder takes several'): one_image(folder, 'predict_folder')
    with pytest.raises(ValueError, match='these are 0 images'): one_image([], 'f')

def test_results_are_left_out_where_they_lie_among_images_not_around_them(folder):
    every = [*find_images(folder)]
    assert [*find_images(folder, folder.parent)]==[*find_images(folder, folder)]==every
    assert [*find_images(folder, folder/'deep')]==[name for name in every if not name.startswith('deep/')]!=every

def test_names_differ(folder):
    (folder/'deep/s1.png').write_bytes((folder/'s1.png').read_bytes())
    assert [*named_images(folder)]==[*find_images(folder)]==['deep/s1.png','deep/s3.tif','s1.png','s2.jpg','s10.png']
    assert [*named_images([folder/'s1.png', folder/'s10.png'])]==['s1.png','s10.png']
    assert [*named_images([folder/'s1.png', folder/'deep'])]==['s1.png','deep/s1.png','deep/s3.tif']
    assert [*named_images([PX, folder/'s1.png', PX])]==['image0000','s1.png','image0002']
    assert [*named_images([open_scene(PX, name='a'), PX])]==['a','image0001']
    assert len(named_images([folder/'s1.png', PX, folder/'s1.png']))<=3

# --- addresses

class Web(BaseHTTPRequestHandler):
    "A server that keeps what it was asked, and misbehaves where the path says so"
    seen = []
    def log_message(self, *_): pass
    def do_GET(self):
        self.seen.append(self.path)
        buffer = io.BytesIO(); Image.fromarray(PX).save(buffer, 'PNG'); data = buffer.getvalue()
        code = dict(gone=404, broken=500).get(self.path.strip('/'), 200)
        if self.path=='/moved': self.send_response(302); self.send_header('Location', '/a.png'); self.end_headers(); return
        if self.path=='/elsewhere': self.send_response(302); self.send_header('Location', 'file:///a.png'); self.end_headers(); return
        if self.path.startswith('/page'): data = b'<html>no image</html>'
        if self.path.startswith('/large'): buffer = io.BytesIO(); Image.fromarray(np.random.default_rng(1).integers(
            0, 255, (1500,1500,3)).astype(np.uint8)).save(buffer, 'BMP'); data = buffer.getvalue()
        if self.path=='/slow': time.sleep(1.5)
        self.send_response(code)
        if self.path!='/endless': self.send_header('Content-Length', str(len(data)+(50 if self.path=='/short' else 0)))
        self.end_headers()
        self.wfile.write(data*(300 if self.path=='/endless' else 1))

@pytest.fixture
def web(tmp_path, monkeypatch):
    for name in ('http_proxy','HTTP_PROXY','all_proxy','ALL_PROXY'): monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv('no_proxy', '*')
    monkeypatch.setenv('ROTNB_HOME', str(tmp_path/'home'))
    server = ThreadingHTTPServer(('127.0.0.1',0), Web)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    Web.seen.clear()
    close = lambda: (server.shutdown(), server.server_close())
    yield AttrDict(at=f'http://127.0.0.1:{server.server_port}', home=tmp_path/'home', close=close)
    close()

def kept(web): return [o for o in web.home.rglob('*') if o.is_file()]

def test_an_address_is_fetched_once(web):
    (file,) = image_list(f'{web.at}/a.png?v=2')
    assert (np.asarray(Image.open(file))==PX).all() and file.name=='a.png' and web.home in file.parents
    assert image_list([f'{web.at}/a.png?v=2'])==[file] and Web.seen==['/a.png?v=2'] and kept(web)==[file]
    assert fetch_image(f'{web.at}/a.png?v=2', fresh=True)==file and len(Web.seen)==2
    assert fetch_image(f'{web.at}/a.png?v=3')!=file and fetch_image(f'{web.at}/moved').exists()
    web.close()
    assert image_list(f'{web.at}/a.png?v=2')==[file]

@pytest.mark.parametrize('path,kw,words', [
    ('gone',{},'404'), ('broken',{},'500'), ('page.png',{},'is no image'), ('short',{},'broken off'),
    ('slow',dict(timeout=.3),'cannot be fetched'), ('a.png',dict(most=50),'more than most'),
    ('endless',dict(most=5000),'more than most'), ('elsewhere',{},'cannot be fetched|302')])
def test_an_address_that_gives_no_image(web, path, kw, words):
    with pytest.raises(DownloadError, match=words) as e: fetch_image(f'{web.at}/{path}', **kw)
    assert f'/{path}' in str(e.value) and '\n' not in str(e.value) and not kept(web)

def test_a_fresh_copy_that_fails_leaves_the_old(web, monkeypatch):
    file = fetch_image(f'{web.at}/page.png'.replace('page', 'a'))
    monkeypatch.setattr(download, '_chunks', lambda *_: iter([b'<html>']))
    with pytest.raises(DownloadError): fetch_image(f'{web.at}/a.png', fresh=True)
    assert (np.asarray(Image.open(file))==PX).all() and kept(web)==[file]

@pytest.mark.parametrize('url', ['http://', 'http://no host/a.png', 'http://127.0.0.1:1/a.png', 'https://[::1/a.png'])
def test_an_address_that_leads_nowhere(tmp_path, url, monkeypatch):
    monkeypatch.setenv('no_proxy', '*')
    with pytest.raises(DownloadError, match='cannot be fetched'): fetch_image(url, tmp_path)
    assert not list(tmp_path.rglob('*.*'))

@pytest.mark.parametrize('url,name', [('http://a/b/c%20d.png','c_d.png'), ('http://a/%2e%2e%2fx.png','x.png'), ('http://a/','image'),
                                      ('http://a/.png','png'), ('http://a/'+'x'*300+'.tif','x'*76+'.tif'), ('http://a/..','image')])
def test_names_of_addresses_stay_in_the_folder(tmp_path, url, name):
    file = S._cached(url, tmp_path)
    assert file.name==name and file.parent.parent==tmp_path

def test_a_large_one_has_a_bar(web):
    with terminal() as said: fetch_image(f'{web.at}/large.bmp')
    assert '%' in ''.join(said)
    with terminal() as said: fetch_image(f'{web.at}/a.png')
    assert not ''.join(said)

"A file from the web arrives whole or not at all, goes on after a break, and says what is wrong in one sentence"
import errno, threading
from collections import namedtuple
from hashlib import sha256
import numpy as np, pytest
from rotnb.data.labels import download
from rotnb.data.labels.download import DownloadError, fetch_file
from terminal import terminal
from web import serving, without_proxies

DATA = np.random.default_rng(0).bytes(30000)
SHA = sha256(DATA).hexdigest()[:8]

@pytest.fixture
def web(tmp_path, monkeypatch):
    without_proxies(monkeypatch)
    (tmp_path/'there').mkdir()
    (tmp_path/'there/a.pth').write_bytes(DATA)
    with serving(tmp_path/'there') as server:
        server.url,server.file = server.at+'/deep/a.pth',tmp_path/'here/a.pth'
        yield server

def kept(web): return sorted(o.name for o in web.file.parent.iterdir())

def test_it_is_fetched_once(web):
    assert fetch_file(web.url, web.file, SHA)==web.file and web.file.read_bytes()==DATA
    assert fetch_file(web.url, web.file, SHA)==web.file and web.asked==[('a.pth',None)] and kept(web)==['a.pth']
    fetch_file(web.url, web.file, SHA.upper(), fresh=True)
    assert len(web.asked)==2 and kept(web)==['a.pth']

@pytest.mark.parametrize('sha', ['', SHA])
def test_after_a_break_the_rest_is_asked_for(web, sha):
    web.cut = 12000
    with pytest.raises(DownloadError, match='broken off after 12,000 of 30,000 bytes'): fetch_file(web.url, web.file, sha)
    assert kept(web)==['a.part.pth']
    web.cut = 17000
    with pytest.raises(DownloadError, match='broken off after 17,000 of 30,000'): fetch_file(web.url, web.file, sha)
    fetch_file(web.url, web.file, sha)
    assert web.file.read_bytes()==DATA and kept(web)==['a.pth'] and [o[1] for o in web.asked]==[None,'bytes=12000-','bytes=17000-']

def test_a_server_that_knows_no_ranges_gives_all(web):
    web.cut,web.ranges = 12000,False
    with pytest.raises(DownloadError, match='broken off'): fetch_file(web.url, web.file, SHA)
    fetch_file(web.url, web.file, SHA)
    assert web.file.read_bytes()==DATA and kept(web)==['a.pth']

def test_a_beginning_of_something_else_is_not_gone_on_from(web):
    "Whether it is shorter, as long or longer; without a checksum only the length can tell"
    web.file.parent.mkdir()
    for old in (b'x'*12000, b'x'*len(DATA), b'x'*40000, DATA):
        web.file.with_name('a.part.pth').write_bytes(old)
        fetch_file(web.url, web.file, SHA, fresh=True)
        assert web.file.read_bytes()==DATA and kept(web)==['a.pth']
    web.file.with_name('a.part.pth').write_bytes(b'x'*40000)
    assert fetch_file(web.url, web.file, fresh=True).read_bytes()==DATA

def test_what_has_another_checksum_is_not_kept(web):
    with pytest.raises(DownloadError, match=f'begins with {SHA}, not with 00000000, and it is not kept') as e:
        fetch_file(web.url, web.file, '00000000', hint='HINT')
    assert not kept(web) and str(e.value).endswith('. HINT') and len(web.asked)==1
    web.spoil = b'<html>'
    with pytest.raises(DownloadError, match='not with'): fetch_file(web.url, web.file, SHA)

def test_what_a_check_refuses_is_not_kept(web):
    def check(path): raise DownloadError(f'{path.name} is no picture')
    with pytest.raises(DownloadError, match='a.part.pth is no picture'): fetch_file(web.url, web.file, check=check)
    assert not kept(web)

def test_errors_say_what_to_do(web, monkeypatch):
    fetch = lambda **kw: fetch_file(web.url, web.file, hint='HINT', **kw)
    with pytest.raises(DownloadError, match='none.pth: the server says 404 .*[.?] HINT$'):
        fetch_file(web.at+'/none.pth', web.file, hint='HINT')
    with pytest.raises(DownloadError, match='more than most=0 MB[.?] HINT$'): fetch(most=20000)
    with pytest.raises(DownloadError, match='cannot be fetched: .*is there a network[.?] HINT$'):
        fetch_file('http://127.0.0.1:1/a.pth', web.file, hint='HINT')
    with pytest.raises(DownloadError, match='cannot be fetched'): fetch_file('ftp:/a', web.file)
    with monkeypatch.context() as m:
        m.setattr(download.shutil, 'disk_usage', lambda _: namedtuple('Usage', 'free')(2e4))
        with pytest.raises(DownloadError, match='do not fit into .*here.*make room[.?] HINT$'): fetch()
    def full(*_): raise OSError(errno.ENOSPC, 'No space left on device')
    with monkeypatch.context() as m:
        m.setattr(download, '_chunks', full)
        with pytest.raises(DownloadError, match='disk is full; make room and call again[.?] HINT$'): fetch()
    assert fetch().read_bytes()==DATA

def test_two_at_once_fetch_it_once(web):
    web.hold,found = threading.Event(),[]
    both = [threading.Thread(target=lambda: found.append(fetch_file(web.url, web.file, SHA))) for _ in range(2)]
    for thread in both: thread.start()
    web.hold.set()
    for thread in both: thread.join(20)
    assert found==[web.file]*2 and len(web.asked)==1 and kept(web)==['a.pth']

def test_a_large_one_has_a_bar(web):
    (web.folder/'large.pth').write_bytes(DATA*200)
    with terminal() as said: fetch_file(web.at+'/large.pth', web.file.with_name('large.pth'))
    assert '%' in ''.join(said)

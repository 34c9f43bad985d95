"A web server on this machine that gives the files of a folder by their names, and misbehaves when told to"
import threading
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import unquote

class Files(BaseHTTPRequestHandler):
    "`server.cut`: where in the file the next answer breaks off; `ranges=False`: all or nothing; `spoil`: bytes put in front"
    def log_message(self, *_): pass
    def do_GET(self):
        server,file = self.server,self.server.folder/Path(unquote(self.path)).name
        asked = self.headers.get('Range')
        server.asked.append((file.name, asked))
        end,server.cut = server.cut,None
        if server.hold: server.hold.wait(20)
        if not file.is_file(): return self.send_error(404)
        data = server.spoil+file.read_bytes()
        start = int(asked[6:-1]) if asked and server.ranges else 0
        if start>=len(data):
            self.send_response(416); self.send_header('Content-Range', f'bytes */{len(data)}')
            self.send_header('Content-Length', '0'); self.end_headers(); return
        self.send_response(206 if start else 200)
        if start: self.send_header('Content-Range', f'bytes {start}-{len(data)-1}/{len(data)}')
        self.send_header('Content-Length', str(len(data)-start))
        self.end_headers()
        self.wfile.write(data[start:end])

@contextmanager
def serving(folder):
    "The server, while the block runs; its address is `.at`"
    server = ThreadingHTTPServer(('127.0.0.1',0), Files)
    server.folder,server.asked,server.at = Path(folder),[],f'http://127.0.0.1:{server.server_port}'
    server.cut,server.ranges,server.spoil,server.hold = None,True,b'',None
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try: yield server
    finally: server.shutdown(); server.server_close()

def without_proxies(monkeypatch):
    for name in ('http_proxy','HTTP_PROXY','all_proxy','ALL_PROXY'): monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv('no_proxy', '*')

"""Load test of the server on loopback, beside the bare predictor:
`OMP_NUM_THREADS=1 NUMBA_NUM_THREADS=1 python serve.py --json serve_cpu.json > serve_cpu.txt`.
The server is the command `rotnb-serve` in a process of its own; clients are threads of this one, each with one connection, and send the
next request when the last is answered. What is measured: the bare predictor image by image and in batches; requests a second, p50 and
p99 for 1 to 16 clients, as JPEG; more clients than the line holds; SIGTERM under load. Times are by the clock, and those of processor
time, which other programs on the machine disturb less; the server's own is from /metrics. Every request is counted on both sides, and
the counts agree."""
import argparse, io, json, os, re, signal, subprocess, sys, threading, time
from pathlib import Path
import httpx, numpy as np, torch
from PIL import Image
from rotnb.cli.bench import machine
from rotnb.cli.predict import open_model
from rotnb.data.synth.scenes import make_scene

def images(n, side):
    "Painted scenes as JPEG"
    res = []
    for i in range(n):
        file = io.BytesIO()
        Image.fromarray(make_scene(i, side)[0]).save(file, 'JPEG', quality=92)
        res.append(file.getvalue())
    return res

def bare(model, data, n, bs):
    "Images a second of the predictor alone, from bytes"
    predictor = open_model(model, 'cpu')
    predictor(data[:bs], bs=bs, progress=False)
    start,cpu = time.perf_counter(),time.process_time()
    for at in range(0, n, bs): predictor([data[(at+i)%len(data)] for i in range(bs)], bs=bs, progress=False)
    return dict(bs=bs, images=n, per_second=n/(time.perf_counter()-start), cpu_ms=1000*(time.process_time()-cpu)/n)

class Server:
    "The command, until the block ends"
    def __init__(self, model, **options):
        flags = [text for name,value in options.items() for text in (f'--{name.replace("_", "-")}',str(value))]
        self.process = subprocess.Popen([sys.executable,'-m','rotnb.cli.serve',model,'--port','0','--device','cpu',*flags],
                                        stdout=subprocess.PIPE, text=True)
        self.url = re.search(r'http://\S+?(?=,)', self.process.stdout.readline())[0]
    def __enter__(self): return self
    def __exit__(self, *_): self.stop()
    def stop(self):
        "SIGTERM; what the server counted"
        if self.process.poll() is None: self.process.send_signal(signal.SIGTERM)
        out = self.process.communicate()[0] if not self.process.stdout.closed else ''
        if said := re.search(r'(\d+) of (\d+) requests', out): self.counted = tuple(map(int, said.groups()))
        return self.counted
    def metric(self, name):
        lines = httpx.get(f'{self.url}/metrics', trust_env=False).text.splitlines()
        return sum(float(line.split()[-1]) for line in lines if re.match(rf'{name}(\{{| )', line))

def load(server, data, clients, seconds=None, n=None, patience=0):
    "Requests of several clients for a time, or a number of them: (seconds each, status or error)"
    done,ends,turns = [],time.monotonic()+(seconds or 1e9),iter(range(n or 10**9))
    lock = threading.Lock()
    def client():
        with httpx.Client(base_url=server.url, trust_env=False, timeout=120) as web:
            while time.monotonic()<ends:
                with lock: turn = next(turns, None)
                if turn is None: return
                start = time.perf_counter()
                try: status = web.post('/predict', content=data[turn%len(data)]).status_code
                except httpx.TransportError as e: status = type(e).__name__
                done.append((time.perf_counter()-start,status))
                if not isinstance(status, int): return                       # nobody listens any more
                if status==503 and patience: time.sleep(patience)
    threads = [threading.Thread(target=client) for _ in range(clients)]
    start = time.perf_counter()
    for thread in threads: thread.start()
    return threads,done,start

def statuses(done): return {f'{key}':sum(status==key for _,status in done) for key in sorted({status for _,status in done}, key=str)}

def summed(done, elapsed, **more):
    times = [seconds for seconds,status in done if status==200]
    p50,p99 = np.percentile(times, (50,99))*1000 if times else (None,None)
    return dict(**more, requests=len(done), statuses=statuses(done), per_second=len(times)/elapsed, p50_ms=p50, p99_ms=p99)

def steady(a, data, clients, max_batch):
    with Server(a.model, max_batch=max_batch, queue=64) as server:
        for thread in load(server, data, 2, n=4)[0]: thread.join()
        before = [server.metric(name) for name in ('process_cpu_seconds_total','rotnb_batch_size_sum','rotnb_batch_size_count')]
        threads,done,start = load(server, data, clients, n=a.n)
        for thread in threads: thread.join()
        elapsed = time.perf_counter()-start
        cpu,items,batches = (server.metric(name)-old for name,old in
                             zip(('process_cpu_seconds_total','rotnb_batch_size_sum','rotnb_batch_size_count'), before))
        res = summed(done, elapsed, clients=clients, max_batch=max_batch, cpu_ms=1000*cpu/a.n, in_batch=items/batches)
    return res

def overload(a, data, clients=24, queue=4):
    "More clients than places: who is late is told so, all else is answered"
    with Server(a.model, queue=queue) as server:
        threads,done,start = load(server, data, clients, seconds=20, patience=.2)
        for thread in threads: thread.join()
        elapsed,answered = time.perf_counter()-start,server.metric('rotnb_requests_total')
        res = summed(done, elapsed, clients=clients, queue=queue, counted=answered)
        res['late_p99_ms'] = float(np.percentile([seconds for seconds,status in done if status==503], 99)*1000)
    assert answered==len(done), (answered, len(done))
    assert set(res['statuses'])<={'200','503'}
    return res

def stop(a, data, clients=12):
    "SIGTERM while all clients wait: every request that was taken is answered"
    server = Server(a.model, queue=64)
    threads,done,start = load(server, data, clients, seconds=600)
    while len(done)<2*clients: time.sleep(.01)
    sent = time.perf_counter()
    answered,taken = server.stop()
    ended = time.perf_counter()-sent
    for thread in threads: thread.join()
    replies = [one for one in done if isinstance(one[1], int)]
    assert server.process.returncode==0 and answered==taken==len(replies), (answered, taken, statuses(done))
    counts = dict(taken=taken, answered=answered, replies=len(replies))
    return summed(done, time.perf_counter()-start, clients=clients, **counts, seconds_to_stop=ended)

if __name__=='__main__':
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('--model', default='rotated_fcos_tiny_synth')
    parser.add_argument('--side', type=int, default=320, help='of the images, px')
    parser.add_argument('--n', type=int, default=200, help='requests of a measurement')
    parser.add_argument('--json', help='file for the numbers')
    a = parser.parse_args()
    torch.set_num_threads(int(os.environ.get('OMP_NUM_THREADS', torch.get_num_threads())))
    data = images(8, a.side)
    log = dict(command='serve', model=a.model, side=a.side, machine=machine('cpu'))
    log['bare'] = [bare(a.model, data, a.n, bs) for bs in (1,2,4,8)]
    say = lambda text: print(text.format(**row), flush=True)
    for row in log['bare']: say('bare    {bs:3} in a batch    {per_second:6.1f} images/s   {cpu_ms:6.1f} ms of processor each')
    log['steady'] = []
    for clients,max_batch in ((1,1),(1,8),(2,2),(4,4),(8,1),(8,8),(16,8)):
        row = steady(a, data, clients, max_batch)
        log['steady'].append(row)
        say('served  {clients:3} clients, batches to {max_batch} ({in_batch:.1f})   {per_second:6.1f} requests/s   p50 {p50_ms:6.0f} ms   '
            'p99 {p99_ms:6.0f} ms   {cpu_ms:6.1f} ms of processor each')
    log['overload'] = row = overload(a, data)
    say('full    {clients} clients, {queue} places: {statuses}, {per_second:.1f} answers/s, p99 {p99_ms:.0f} ms, '
        'refused within {late_p99_ms:.0f} ms (p99)')
    log['stop'] = row = stop(a, data)
    say('stopped {clients} clients at work: {taken} requests taken, {answered} answered, {replies} replies received, '
        'ended after {seconds_to_stop:.1f} s; {statuses}')
    if a.json: Path(a.json).write_text(json.dumps(log, indent=1)+'\n')

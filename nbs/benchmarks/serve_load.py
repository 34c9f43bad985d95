"""What a server costs that nobody asks, and what 500 requests leave behind:
`OMP_NUM_THREADS=1 NUMBA_NUM_THREADS=1 python serve_load.py --json serve_load.json`.
Processor seconds of the server's process in `--idle` seconds without a request, after it has answered some; then requests of a few
clients: answers a second, p50 and p95, processor time of each, and the memory of the process before, in between and after.
[serve.py](serve.py) has more clients than places, and SIGTERM."""
import argparse, json, os, time
from pathlib import Path
import numpy as np, psutil, torch
from rotnb.cli.bench import machine
from rotnb.data.labels.atomic import write_atomic
from serve import Server, images, load, statuses

def spent(process): return sum(process.cpu_times()[:2])                 # processor seconds
def held(process): return round(process.memory_info().rss/2**20, 1)     # MiB

def idle(process, seconds):
    "Processor seconds while nobody asks"
    before,start = spent(process),time.perf_counter()
    time.sleep(seconds)
    return dict(seconds=round(time.perf_counter()-start, 1), cpu_seconds=round(spent(process)-before, 3))

def asked(server, process, data, clients, n, every):
    "Requests, and the memory of the server after each `every` of them"
    done,memory,cpu,start = [],[held(process)],spent(process),time.perf_counter()
    for at in range(0, n, every):
        threads,some,_ = load(server, data, clients, n=min(every, n-at))
        for thread in threads: thread.join()
        done += some
        memory.append(held(process))
    took = time.perf_counter()-start
    p50,p95 = np.percentile([one for one,_ in done], (50,95))*1000
    return dict(clients=clients, requests=len(done), statuses=statuses(done), per_second=len(done)/took, p50_ms=p50, p95_ms=p95,
                cpu_ms=1000*(spent(process)-cpu)/len(done), share=(spent(process)-cpu)/took, every=every, memory_mib=memory)

if __name__=='__main__':
    p = argparse.ArgumentParser(description=__doc__)
    p.add_argument('--model', default='rotated_fcos_tiny_synth'); p.add_argument('--side', type=int, default=320, help='of images, px')
    p.add_argument('--idle', type=float, default=60); p.add_argument('--n', type=int, default=500)
    p.add_argument('--clients', type=int, default=2); p.add_argument('--every', type=int, default=100); p.add_argument('--json')
    a = p.parse_args()
    torch.set_num_threads(int(os.environ.get('OMP_NUM_THREADS', torch.get_num_threads())))
    data = images(8, a.side)
    with Server(a.model, queue=64) as server:
        process = psutil.Process(server.process.pid)
        for thread in load(server, data, 2, n=4)[0]: thread.join()
        log = dict(command='serve_load', model=a.model, side=a.side, machine=machine('cpu'), idle=idle(process, a.idle))
        log['asked'] = asked(server, process, data, a.clients, a.n, a.every)
        log['idle_after'] = idle(process, a.idle)
    print(json.dumps({key:log[key] for key in ('idle','asked','idle_after')}, indent=1))
    if a.json: write_atomic(a.json, json.dumps(log, indent=1)+'\n')

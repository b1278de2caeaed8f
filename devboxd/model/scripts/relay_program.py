"""The relay on the box: carries one command's streams through a terminal. Started by relay.sh, one argument: the nonce.

Runs on whatever Python 3 a box has (3.5 and later) with nothing but the standard library, from ``-c``: this text
travels in the start command, so it is short on purpose. The lines it speaks are listed in ``devboxd/model/relay.py``.
"""
import base64,errno,json,os,select,signal,subprocess,sys,zlib
b64=base64.b64encode
def put(k,b):
    v=memoryview(k+b+b"\n")
    while v:
        v=v[os.write(1,v):]
n=sys.argv[1].encode()
os.write(1,b"\n"+n+b':r{"relay":"python"}\n')
buf=b"";req=None
while req is None:
    d=os.read(0,65536)
    if not d: sys.exit(1)
    buf+=d
    while b"\n" in buf and req is None:
        l,buf=buf.split(b"\n",1)
        if l[:1]==b"R": req=json.loads(base64.b64decode(l[1:].split(b" ")[0]))
env=dict(os.environ);env.update(req["env"])
W=req["window"];rin,win=os.pipe()
try:
    c=subprocess.Popen(req["argv"],stdin=rin if req["stdin"] else subprocess.DEVNULL,stdout=subprocess.PIPE,stderr=subprocess.PIPE,env=env,start_new_session=True,bufsize=0,restore_signals=True)
except OSError as e:
    put(b"f",str(127 if e.errno==errno.ENOENT else 126).encode()+b" "+b64((os.strerror(e.errno)).encode()))
    sys.exit(0)
os.close(rin)
os.set_blocking(win,False)
if not req["stdin"]: os.close(win);win=-1
o=c.stdout.fileno();e=c.stderr.fileno()
z={o:(b"o",zlib.compressobj(6)),e:(b"e",zlib.compressobj(6))}
wr,ww=os.pipe()
os.set_blocking(ww,False)
signal.set_wakeup_fd(ww)
signal.signal(signal.SIGCHLD,lambda *a:None)
def bye(*a):
    try: os.killpg(c.pid,signal.SIGHUP)
    except OSError: pass
    os._exit(1)
signal.signal(signal.SIGHUP,bye)
inq=[];ended=False;sent=0;rc=None;tty=True
def line(l):
    global ended,sent
    k=l[:1]
    if k==b"i" and win>=0: inq.append(base64.b64decode(l[1:]))
    elif k==b"i": put(b"c",str(len(base64.b64decode(l[1:]))).encode())
    elif k==b"z": ended=True
    elif k==b"k": sent-=int(l[1:])
    elif k==b"s":
        try: os.killpg(c.pid,int(l[1:]))
        except OSError: pass
def close_in():
    global win
    if win>=0:
        os.close(win);win=-1
while True:
    while b"\n" in buf:
        l,buf=buf.split(b"\n",1);line(l)
    if ended and not inq: close_in()
    r=[wr]+([0] if tty else [])+(list(z) if sent<W else [])
    t=None
    if rc is not None:
        if not z: break
        t=1.0
    a,b,_=select.select(r,[win] if win>=0 and inq else [],[],t)
    if rc is not None and not a: break
    if wr in a:
        os.read(wr,4096)
        rc=c.poll()
    if 0 in a:
        try: d=os.read(0,65536)
        except OSError: d=b""
        if not d: bye()
        buf+=d
    for f in list(z):
        if f in a:
            d=os.read(f,32768)
            k,zz=z[f]
            if d:
                sent+=len(d)
                put(k,b64(zz.compress(d)+zz.flush(zlib.Z_SYNC_FLUSH)))
            else: del z[f]
    if b:
        try:
            m=os.write(win,inq[0]);g=m
            if m<len(inq[0]): inq[0]=inq[0][m:]
            else: inq.pop(0)
        except BlockingIOError: g=0
        except OSError:
            g=sum(map(len,inq));inq[:]=[];close_in()
        if g: put(b"c",str(g).encode())
    elif win<0 and inq:
        put(b"c",str(sum(map(len,inq))).encode());inq[:]=[]
put(b"x",str(rc if rc>=0 else 128-rc).encode())

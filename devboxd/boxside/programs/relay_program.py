"""The relay on the box: carries one command's streams through a terminal. Started by relay.sh, one argument: the nonce.

Runs on whatever Python 3 a box has (3.5 and later) with nothing but the standard library, from ``-c``: this text
travels in the start command, so it is short on purpose. The lines it speaks are listed in ``devboxd/boxside/relay.py``.
"""
import base64,collections,errno,json,os,select,signal,subprocess,sys,zlib
b64=base64.b64encode
def raw(b):
    v=memoryview(b)
    while v:
        v=v[os.write(1,v):]
kept=collections.deque()
last=0;sent=0
plain=False
def text(m,k,b):
    if k in b"oe":
        if plain: b=b64(b)
        else:
            k=k.upper()
            for x,y in ((b"=",b"=}"),(b"\n",b"=J"),(b"\r",b"=M"),(b"\xef",b"=o")): b=b.replace(x,y)
    h=b"%s%d"%(k,m)
    return b"%s,%08x,%s   \n"%(h,zlib.crc32(h+b),b)
def put(k,b,size=0):
    global last,sent
    # What packs well is counted, too: the reader must not be buried under what it unpacks to.
    cost=max(len(b),size//8)
    last+=1;sent+=cost
    kept.append((last,k,b,cost))
    raw(text(last,k,b))
n=sys.argv[1].encode()
raw(b"\n"+n+b':r{"relay":"python"}\n')
buf=b"";req=None
while req is None:
    d=os.read(0,65536)
    if not d: sys.exit(1)
    buf+=d
    while b"\n" in buf and req is None:
        l,buf=buf.split(b"\n",1)
        if l[:1]==b"R": req=json.loads(base64.b64decode(l[1:].split(b" ")[0]).decode())
env=dict(os.environ);env.update(req["env"])
W=req["window"];rin,win=os.pipe()
c=None;z={};inq=[];ended=False;rc=None;over=False
def bye(*a):
    try: os.killpg(c.pid,signal.SIGHUP)
    except (OSError,AttributeError): pass
    os._exit(1)
signal.signal(signal.SIGHUP,bye)
for x in (signal.SIGINT,signal.SIGQUIT): signal.signal(x,signal.SIG_DFL)
wr,ww=os.pipe()
os.set_blocking(ww,False)
signal.set_wakeup_fd(ww)
signal.signal(signal.SIGCHLD,lambda *a:None)
try:
    c=subprocess.Popen(req["argv"],stdin=rin if req["stdin"] else subprocess.DEVNULL,stdout=subprocess.PIPE,stderr=subprocess.PIPE,env=env,start_new_session=True,bufsize=0)
    o=c.stdout.fileno();e=c.stderr.fileno()
    z={o:(b"o",zlib.compressobj(6)),e:(b"e",zlib.compressobj(6))}
except OSError as x:
    put(b"f",b"%d %s"%(127 if x.errno==errno.ENOENT else 126,b64(os.strerror(x.errno).encode())))
    over=True
os.close(rin)
os.set_blocking(win,False)
if not req["stdin"] or over: os.close(win);win=-1
def line(l):
    global ended,sent,plain
    k=l[:1]
    if k==b"i" and win>=0: inq.append(base64.b64decode(l[1:]))
    elif k==b"i": put(b"c",b"%d"%len(base64.b64decode(l[1:])))
    elif k==b"z": ended=True
    elif k==b"k":
        while kept and kept[0][0]<=int(l[1:]): sent-=kept.popleft()[3]
    elif k==b"g":
        for m,t,x,_ in list(kept):
            if m==int(l[1:]): raw(text(m,t,x))
    elif k==b"b": plain=True
    elif k==b"s" and c:
        try: os.killpg(c.pid,int(l[1:]))
        except OSError: pass
def close_in():
    global win
    if win>=0:
        os.close(win);win=-1
while True:
    while b"\n" in buf:
        l,buf=buf.split(b"\n",1)
        try: line(l)
        except ValueError: pass
    if over and not kept: break
    if ended and not inq: close_in()
    r=[wr,0]+(list(z) if sent<W else [])
    a,b,_=select.select(r,[win] if win>=0 and inq else [],[],1.0 if rc is not None and z and not over else None)
    if wr in a: os.read(wr,4096)
    if rc is None and c:
        rc=c.poll()
    if 0 in a:
        try: d=os.read(0,65536)
        except OSError: d=b""
        if not d: bye()
        buf+=d
    for f in list(z):
        if f in a:
            d=os.read(f,16384)
            k,zz=z[f]
            if d: put(k,zz.compress(d)+zz.flush(zlib.Z_SYNC_FLUSH),len(d))
            else: del z[f]
    if b:
        try:
            g=os.write(win,inq[0])
            if g<len(inq[0]): inq[0]=inq[0][g:]
            else: inq.pop(0)
        except BlockingIOError: g=0
        except OSError:
            g=sum(map(len,inq));inq[:]=[];close_in()
        if g: put(b"c",b"%d"%g)
    elif win<0 and inq:
        put(b"c",b"%d"%sum(map(len,inq)));inq[:]=[]
    if rc is not None and not over and (not z or not a and len(r)>2):
        put(b"x",b"%d"%(rc if rc>=0 else 128-rc));over=True

"""Serve an ssh-agent socket on the box and carry its connections over standard input and output.

Runs from ``-c`` on whatever Python 3 a box has. Frames both ways: connection number u32, length u32, bytes; a length
of 0 closes. The socket's path never changes, so panes of any age find whoever serves it now.
"""
import os,select,socket,struct,sys
d=os.path.join(os.path.expanduser("~"),".devbox")
os.makedirs(d,0o700,exist_ok=True)
os.chmod(d,0o700)
path=os.path.join(d,"agent.sock")
own=path+".%d"%os.getpid()
os.umask(0o177)
s=socket.socket(socket.AF_UNIX)
s.bind(own)
s.listen(16)
inode=os.stat(own).st_ino
os.rename(own,path)
sys.stdout.buffer.write(b"ready")
sys.stdout.buffer.flush()
conns={};names={};n=0;buf=b""
H=struct.Struct(">II")
def out(b):
    v=memoryview(b)
    while v: v=v[os.write(1,v):]
def drop(i,tell=True):
    c=conns.pop(i,None)
    if c is not None:
        names.pop(c.fileno(),None);c.close()
        if tell: out(H.pack(i,0))
try:
    while True:
        for c in select.select([0,s]+list(conns.values()),[],[])[0]:
            if c==0:
                b=os.read(0,65536)
                if not b: sys.exit(0)
                buf+=b
                while len(buf)>=8:
                    i,l=H.unpack_from(buf)
                    if len(buf)<8+l: break
                    data=buf[8:8+l];buf=buf[8+l:]
                    if i not in conns: continue
                    if not l: drop(i,False);continue
                    try: conns[i].sendall(data)
                    except OSError: drop(i)
            elif c is s:
                k,_=s.accept()
                n+=1;conns[n]=k;names[k.fileno()]=n
            else:
                i=names.get(c.fileno())
                if i is None: continue
                try: b=c.recv(16384)
                except OSError: b=b""
                if b: out(H.pack(i,len(b))+b)
                else: drop(i)
finally:
    # Only while it is still ours: another attach may serve the path by now.
    try:
        if os.stat(path).st_ino==inode: os.unlink(path)
    except OSError: pass

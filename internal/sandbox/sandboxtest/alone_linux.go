package sandboxtest

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// alone is set where a test has a network of its own.
const alone = "TEST_IS_ALONE"

// Alone runs the calling test once more in a process whose network is its own and
// reaches nothing: there, every address of the world is this machine, and names are
// asked of nameserver. It reports whether this is that process. Where the system
// gives no such network, the test is skipped.
func Alone(t *testing.T, nameserver string) bool {
	t.Helper()
	if os.Getenv(alone) != "" {
		ownNetwork(t, nameserver)
		return true
	}
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	c := exec.CommandContext(t.Context(), exe, "-test.run=^"+t.Name()+"$", "-test.v", "-test.timeout=5m")
	c.Env = []string{alone + "=1", "PATH=" + os.Getenv("PATH"), "TMPDIR=" + t.TempDir()}
	c.SysProcAttr = &syscall.SysProcAttr{
		Cloneflags:  syscall.CLONE_NEWUSER | syscall.CLONE_NEWNET | syscall.CLONE_NEWNS,
		UidMappings: []syscall.SysProcIDMap{{HostID: os.Getuid(), Size: 1}},
		GidMappings: []syscall.SysProcIDMap{{HostID: os.Getgid(), Size: 1}},
		Pdeathsig:   syscall.SIGKILL,
	}
	out, err := c.CombinedOutput()
	var exit *exec.ExitError
	switch {
	case err == nil && strings.Contains(string(out), "--- PASS: "+t.Name()):
	case err == nil || errors.As(err, &exit):
		t.Errorf("in a network of its own: %v\n%s", err, out)
	default:
		t.Skipf("this system gives no network of one's own: %v", err)
	}
	return false
}

// ownNetwork makes every address that there is lead to this machine, and its
// names be asked of nameserver.
func ownNetwork(t *testing.T, nameserver string) {
	t.Helper()
	steps := []struct {
		what string
		do   func() error
	}{
		{"loopback up", func() error { return netlink(unix.RTM_NEWLINK, 0, linkUp()) }},
		{"every IPv4 address", func() error { return netlink(unix.RTM_NEWROUTE, unix.NLM_F_CREATE, localRoute(unix.AF_INET)) }},
		{"every IPv6 address", func() error { return netlink(unix.RTM_NEWROUTE, unix.NLM_F_CREATE, localRoute(unix.AF_INET6)) }},
		{"mounts of its own", func() error { return unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, "") }},
		{"a name server of its own", func() error {
			file := filepath.Join(t.TempDir(), "resolv.conf")
			if err := os.WriteFile(file, []byte("nameserver "+nameserver+"\noptions timeout:5\n"), 0o600); err != nil {
				return err
			}
			path, err := filepath.EvalSymlinks("/etc/resolv.conf")
			if err != nil {
				return err
			}
			return unix.Mount(file, path, "", unix.MS_BIND, "")
		}},
	}
	for _, s := range steps {
		if err := s.do(); err != nil {
			t.Fatalf("%s: %v", s.what, err)
		}
	}
}

// linkUp is the message that switches the first link, loopback, on.
func linkUp() []byte {
	b := make([]byte, unix.SizeofIfInfomsg)
	binary.NativeEndian.PutUint32(b[4:], 1)
	binary.NativeEndian.PutUint32(b[8:], unix.IFF_UP)
	binary.NativeEndian.PutUint32(b[12:], unix.IFF_UP)
	return b
}

// localRoute is the message that makes all addresses of a family local ones.
func localRoute(family byte) []byte {
	b := []byte{family, 0, 0, 0, unix.RT_TABLE_LOCAL, unix.RTPROT_BOOT, unix.RT_SCOPE_HOST, unix.RTN_LOCAL, 0, 0, 0, 0}
	b = binary.NativeEndian.AppendUint16(b, 8) // an attribute: the link, which is the first
	b = binary.NativeEndian.AppendUint16(b, unix.RTA_OIF)
	return binary.NativeEndian.AppendUint32(b, 1)
}

// netlink asks the kernel for a change.
func netlink(kind, flags uint16, message []byte) error {
	fd, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.NETLINK_ROUTE)
	if err != nil {
		return err
	}
	defer func() { _ = unix.Close(fd) }()
	b := binary.NativeEndian.AppendUint32(nil, uint32(unix.SizeofNlMsghdr+len(message)))
	b = binary.NativeEndian.AppendUint16(b, kind)
	b = binary.NativeEndian.AppendUint16(b, unix.NLM_F_REQUEST|unix.NLM_F_ACK|flags)
	b = binary.NativeEndian.AppendUint32(b, 1)
	b = binary.NativeEndian.AppendUint32(b, 0)
	if err := unix.Sendto(fd, append(b, message...), 0, &unix.SockaddrNetlink{Family: unix.AF_NETLINK}); err != nil {
		return err
	}
	reply := make([]byte, 4096)
	n, _, err := unix.Recvfrom(fd, reply, 0)
	if err != nil {
		return err
	}
	if n < unix.SizeofNlMsghdr+4 || binary.NativeEndian.Uint16(reply[4:]) != unix.NLMSG_ERROR {
		return fmt.Errorf("no answer from the kernel: % x", reply[:n])
	}
	if code := int32(binary.NativeEndian.Uint32(reply[unix.SizeofNlMsghdr:])); code != 0 {
		return syscall.Errno(-code)
	}
	return nil
}

// Unplug makes the addresses of an IPv4 network lead nowhere, as if a cable had been
// pulled: also connections that are open carry nothing more. plug ends it.
func Unplug(t *testing.T, network netip.Prefix) (plug func()) {
	t.Helper()
	b := []byte{unix.AF_INET, byte(network.Bits()), 0, 0, unix.RT_TABLE_LOCAL, unix.RTPROT_BOOT, unix.RT_SCOPE_UNIVERSE, unix.RTN_UNREACHABLE, 0, 0, 0, 0}
	b = binary.NativeEndian.AppendUint16(b, 8)
	b = binary.NativeEndian.AppendUint16(b, unix.RTA_DST)
	b = append(b, network.Addr().AsSlice()...)
	if err := netlink(unix.RTM_NEWROUTE, unix.NLM_F_CREATE, b); err != nil {
		t.Fatalf("unplug %s: %v", network, err)
	}
	return func() {
		t.Helper()
		if err := netlink(unix.RTM_DELROUTE, 0, b); err != nil {
			t.Fatalf("plug %s in again: %v", network, err)
		}
	}
}

// Wire sees every packet that begins something: whom it is for.
type Wire struct {
	mu   sync.Mutex
	seen map[string]int // protocol and address → packets
}

// WatchWire listens on loopback until the test ends.
func WatchWire(t *testing.T) *Wire {
	t.Helper()
	fd, err := unix.Socket(unix.AF_PACKET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, int(htons(unix.ETH_P_ALL)))
	if err != nil {
		t.Fatalf("listen to the wire: %v", err)
	}
	if err := unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &unix.Timeval{Usec: 100_000}); err != nil {
		t.Fatal(err)
	}
	w := &Wire{seen: map[string]int{}}
	stop, ended := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(ended)
		buf := make([]byte, 1<<16)
		for {
			n, _, err := unix.Recvfrom(fd, buf, 0)
			select {
			case <-stop:
				return
			default:
			}
			if err == nil {
				w.packet(buf[:n])
			}
		}
	}()
	t.Cleanup(func() {
		close(stop)
		<-ended
		_ = unix.Close(fd)
	})
	return w
}

func htons(n uint16) uint16 { return n<<8 | n>>8 }

// packet notes a packet if it begins something.
func (w *Wire) packet(b []byte) {
	var to netip.Addr
	var protocol byte
	switch {
	case len(b) >= 20 && b[0]>>4 == 4:
		to, protocol = netip.AddrFrom4([4]byte(b[16:20])), b[9]
		b = b[min(len(b), int(b[0]&0xf)*4):]
	case len(b) >= 40 && b[0]>>4 == 6:
		to, protocol = netip.AddrFrom16([16]byte(b[24:40])), b[6]
		b = b[40:]
	default:
		return
	}
	var name string
	switch {
	case protocol == unix.IPPROTO_TCP && len(b) >= 14 && b[13]&0x12 == 0x02: // SYN without ACK
		name = "tcp "
	case protocol == unix.IPPROTO_UDP && len(b) >= 4 && binary.BigEndian.Uint16(b) != 53: // no answer of a name server
		name = "udp "
	default:
		return
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	w.seen[name+netip.AddrPortFrom(to, binary.BigEndian.Uint16(b[2:])).String()]++
}

// Seen is what was seen, as in "tcp 10.0.0.1:443", once what was sent before has
// had the time to be seen.
func (w *Wire) Seen() []string {
	settled := time.NewTimer(300 * time.Millisecond)
	<-settled.C
	w.mu.Lock()
	defer w.mu.Unlock()
	var all []string
	for what := range w.seen {
		all = append(all, what)
	}
	slices.Sort(all)
	return all
}

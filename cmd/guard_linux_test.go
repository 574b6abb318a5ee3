package cmd

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"log"
	"maps"
	"math/big"
	"net"
	"net/http"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"appview/internal/sandbox/sandboxtest"
)

// The public addresses of the internet that the test makes up. They are those of
// real machines, as the guard lets no others through, and reach nobody: the
// network ends inside of this one.
const (
	nameserverAddr = "198.41.0.4"
	relayAddr      = "93.184.215.14"
	plcAddr        = "93.184.215.15"
	hostAddr       = "93.184.215.16"
	hostAddr6      = "2606:2800:21f:cb07:6820:80da:af6b:8b2c"
	rebindAddr     = "93.184.215.17"
	hostileRev     = "3kgk4qs6aa22a"
)

// internet answers for every address there is, over TLS and without.
type internet struct {
	t       *testing.T
	ca      *x509.Certificate
	key     *ecdsa.PrivateKey
	caFile  string
	targets map[string]string // DID → where its PDS is, says its document

	mu      sync.Mutex
	reached map[netip.Addr]int // connections that were accepted, by where they went
	asked   map[string]int     // look-ups of a name
}

func newInternet(t *testing.T) *internet {
	t.Helper()
	n := &internet{t: t, targets: map[string]string{}, reached: map[netip.Addr]int{}, asked: map[string]int{}}
	var err error
	if n.key, err = ecdsa.GenerateKey(elliptic.P256(), rand.Reader); err != nil {
		t.Fatal(err)
	}
	ca := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "test"}, IsCA: true, BasicConstraintsValid: true,
		KeyUsage: x509.KeyUsageCertSign, NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
	}
	der, err := x509.CreateCertificate(rand.Reader, ca, ca, n.key.Public(), n.key)
	if err != nil {
		t.Fatal(err)
	}
	if n.ca, err = x509.ParseCertificate(der); err != nil {
		t.Fatal(err)
	}
	n.caFile = filepath.Join(t.TempDir(), "ca.pem")
	if err := os.WriteFile(n.caFile, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}), 0o600); err != nil {
		t.Fatal(err)
	}
	names, err := new(net.ListenConfig).ListenPacket(t.Context(), "udp4", nameserverAddr+":53")
	if err != nil {
		t.Fatal(err)
	}
	sandboxtest.ServeDNS(t, names, n.resolve)
	for _, port := range []string{":443", ":80", ":3128", ":8443"} {
		n.serve(port)
	}
	return n
}

// serve answers on a port of every address.
func (n *internet) serve(port string) {
	n.t.Helper()
	ln, err := new(net.ListenConfig).Listen(n.t.Context(), "tcp", port)
	if err != nil {
		n.t.Fatal(err)
	}
	server := &http.Server{
		Handler: n, ReadTimeout: 10 * time.Second, WriteTimeout: 10 * time.Second, ErrorLog: log.New(io.Discard, "", 0),
		ConnState: func(conn net.Conn, state http.ConnState) {
			if to, ok := conn.LocalAddr().(*net.TCPAddr); ok && state == http.StateNew {
				n.mu.Lock()
				defer n.mu.Unlock()
				n.reached[to.AddrPort().Addr().Unmap()]++
			}
		},
		TLSConfig: &tls.Config{MinVersion: tls.VersionTLS12, GetCertificate: n.certificate},
	}
	ended := make(chan error, 1)
	go func() {
		if port == ":80" || port == ":3128" {
			ended <- server.Serve(ln)
		} else {
			ended <- server.ServeTLS(ln, "", "")
		}
	}()
	n.t.Cleanup(func() {
		_ = server.Close()
		if err := <-ended; !errors.Is(err, http.ErrServerClosed) {
			n.t.Errorf("serve %s: %v", port, err)
		}
	})
}

// certificate makes one for whoever is asked for.
func (n *internet) certificate(hello *tls.ClientHelloInfo) (*tls.Certificate, error) {
	leaf := &x509.Certificate{
		SerialNumber: big.NewInt(2), NotBefore: n.ca.NotBefore, NotAfter: n.ca.NotAfter,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
	}
	if hello.ServerName != "" {
		leaf.DNSNames = []string{hello.ServerName}
	} else if to, ok := hello.Conn.LocalAddr().(*net.TCPAddr); ok {
		leaf.IPAddresses = []net.IP{to.IP}
	}
	der, err := x509.CreateCertificate(rand.Reader, leaf, n.ca, n.key.Public(), n.key)
	return &tls.Certificate{Certificate: [][]byte{der}, PrivateKey: n.key}, err
}

// resolve is the name server's answer. Names under "to" give the address that is
// written in them.
func (n *internet) resolve(name string) []netip.Addr {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.asked[name]++
	text, _, _ := strings.Cut(name, ".to.example.com")
	if addr, err := netip.ParseAddr(strings.NewReplacer("-", ".", "_", ":").Replace(text)); err == nil {
		return []netip.Addr{addr}
	}
	all := map[string][]string{
		"relay.example.com": {relayAddr}, "plc.example.com": {plcAddr}, "host.example.com": {hostAddr}, "host6.example.com": {hostAddr6},
		"mixed.example.com": {"127.0.0.1", "10.0.0.1", "::1", hostAddr},
		"web.example.com":   {hostAddr}, "astray.example.com": {hostAddr},
	}[name]
	if name == "rebind.example.com" {
		all = []string{rebindAddr}
		if n.asked[name] > 2 { // once for each family
			all = []string{"127.0.0.1"}
		}
	}
	var addrs []netip.Addr
	for _, a := range all {
		addrs = append(addrs, netip.MustParseAddr(a))
	}
	return addrs
}

// ServeHTTP is every server there is.
func (n *internet) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	name, _, _ := strings.Cut(r.Host, ":")
	did := r.URL.Query().Get("did") + r.URL.Query().Get("repo")
	switch {
	case name == "plc.example.com" && strings.HasPrefix(r.URL.Path, "/did:plc:astray"):
		http.Redirect(w, r, "https://10.0.0.1/did", http.StatusFound)
	case name == "plc.example.com":
		n.document(w, strings.TrimPrefix(r.URL.Path, "/"))
	case r.URL.Path == "/.well-known/did.json" && name == "astray.example.com":
		http.Redirect(w, r, "https://127-0-0-1.to.example.com/.well-known/did.json", http.StatusFound)
	case r.URL.Path == "/.well-known/did.json":
		n.document(w, "did:web:"+name)
	case name == "relay.example.com":
		http.Redirect(w, r, "https://169.254.169.254/latest/meta-data/", http.StatusTemporaryRedirect)
	case strings.HasPrefix(did, "did:plc:sent"):
		http.Redirect(w, r, n.targets[did], http.StatusFound)
	case strings.HasSuffix(r.URL.Path, "getRepoStatus"):
		if name == "rebind.example.com" {
			w.Header().Set("Connection", "close")
		}
		_, _ = fmt.Fprintf(w, `{"did":%q,"active":true,"rev":%q}`, did, hostileRev)
	case strings.HasSuffix(r.URL.Path, "listRecords"):
		_, _ = io.WriteString(w, `{"records":[]}`)
	default:
		http.NotFound(w, r)
	}
}

func (n *internet) document(w http.ResponseWriter, did string) {
	endpoint := n.targets[did]
	if strings.HasPrefix(did, "did:plc:sent") {
		endpoint = "https://host.example.com"
	}
	_ = json.NewEncoder(w).Encode(map[string]any{"id": did, "service": []any{
		map[string]string{"id": "#atproto_pds", "type": "AtprotoPersonalDataServer", "serviceEndpoint": endpoint},
	}})
}

// plc makes up a DID.
func (n *internet) plc(prefix, target string) string {
	did := "did:plc:" + prefix + strings.Repeat("a", 24)
	suffix := []byte(fmt.Sprint(len(n.targets)))
	for i := range suffix {
		suffix[i] += 'a' - '0'
	}
	did = did[:len("did:plc:")+24-len(suffix)] + string(suffix)
	n.targets[did] = target
	return did
}

// TestNothingLeavesForAnAddressThatIsNotPublic runs the program with its default
// settings in an internet of its own, in which every address leads to a server that
// answers. DID documents, redirects, DNS answers and proxy variables point wherever
// an attacker would like to have the program look. Every packet is seen. Then the
// same again with the guard open, to show that nothing else was in the way.
func TestNothingLeavesForAnAddressThatIsNotPublic(t *testing.T) {
	t.Parallel()
	if !sandboxtest.Alone(t, nameserverAddr) {
		return
	}
	n := newInternet(t)
	const refused, bad = "refused_address", "bad_endpoint"
	wanted := map[string]string{}
	private := []string{
		"127.0.0.1", "127.9.9.9", "10.0.0.1", "172.16.0.1", "192.168.0.1", "169.254.169.254", "100.64.0.1", "0.0.0.0", "224.0.0.1", "255.255.255.255",
		"[::1]", "[::]", "[fd00::1]", "[fe80::1]", "[ff02::1]", "[::ffff:127.0.0.1]", "[::ffff:a9fe:a9fe]", "[64:ff9b::7f00:1]", "[64:ff9b::a00:1]",
		"[2002:7f00:1::1]", "[2001:0:1::1]",
	}
	for _, addr := range private {
		wanted[n.plc("lit", "https://"+addr)] = refused
		name := strings.NewReplacer("[", "", "]", "", ".", "-", ":", "_").Replace(addr) + ".to.example.com"
		if !strings.Contains(name, "ffff_127") { // the same address in another spelling
			wanted[n.plc("name", "https://"+name)] = refused
			wanted[n.plc("sentn", "https://"+name+"/x")] = refused
		}
		wanted[n.plc("sent", "https://"+addr+"/x")] = refused
	}
	for endpoint, reason := range map[string]string{
		"http://127.0.0.1": refused, "https://127.0.0.1:8443": refused, "https://localhost": refused, "https://x.localhost": refused,
		"https://2130706433": bad, "https://0x7f000001": bad, "https://127.1": bad, "https://0177.0.0.1": bad, "https://user@10.0.0.1": bad,
		"https://10.0.0.1/path": bad, "https://[fe80::1%25lo]": bad, "https://host.example.com:8443": bad, "http://host.example.com": bad,
		"https://host.example.com@127.0.0.1": bad, "https://127.0.0.1#@host.example.com": bad, "gopher://127.0.0.1": bad,
	} {
		wanted[n.plc("odd", endpoint)] = reason
	}
	wanted[n.plc("sent", "http://host.example.com/x")] = refused // leaves https
	wanted[n.plc("sent", "https://host.example.com:8443/x")] = bad
	wanted[n.plc("sent", "https://127.0.0.1:8443/x")] = refused
	wanted[n.plc("rebind", "https://rebind.example.com")] = refused
	wanted[n.plc("astray", "")] = refused
	wanted["did:web:astray.example.com"], wanted["did:web:127-0-0-1.to.example.com"], wanted["did:web:10-0-0-1.to.example.com"] = refused, refused, refused
	n.targets["did:web:web.example.com"] = "https://host.example.com"
	// What is as it should be, in every way that is tried.
	wanted["did:web:web.example.com"] = "empty"
	wanted[n.plc("good", "https://host.example.com")] = "empty"
	wanted[n.plc("good", "https://host6.example.com")] = "empty"
	wanted[n.plc("good", "https://"+hostAddr)] = "empty"
	wanted[n.plc("good", "https://["+hostAddr6+"]")] = "empty"
	wanted[n.plc("good", "https://mixed.example.com")] = "empty"

	w := sandboxtest.WatchWire(t)
	got := n.run(t, wanted)
	for did, reason := range wanted {
		if got[did] != reason {
			t.Errorf("%s at %q: %s, want %s", did, n.targets[did], got[did], reason)
		}
	}
	public := []string{"tcp " + relayAddr, "tcp " + plcAddr, "tcp " + hostAddr, "tcp [" + hostAddr6 + "]", "tcp " + rebindAddr}
	for _, packet := range w.Seen() {
		ok := packet == "udp "+nameserverAddr+":53" || strings.HasPrefix(packet, "tcp 127.0.0.1:3333") // that is us, asking the program
		for _, p := range public {
			ok = ok || packet == p+":443"
		}
		if !ok {
			t.Errorf("left: %s", packet)
		}
	}
	n.mu.Lock()
	asked, reached := n.asked["rebind.example.com"], maps.Clone(n.reached)
	n.mu.Unlock()
	if asked < 3 {
		t.Errorf("the name that changes its mind was looked up %d times", asked)
	}
	for addr := range reached {
		if !slices.Contains(public, "tcp "+addr.String()) && !slices.Contains(public, "tcp ["+addr.String()+"]") {
			t.Errorf("reached: %s", addr)
		}
	}
	for _, p := range public {
		if addr := netip.MustParseAddr(strings.Trim(strings.TrimPrefix(p, "tcp "), "[]")); reached[addr] == 0 {
			t.Errorf("%s was never reached: the test tests nothing of it", addr)
		}
	}

	open := map[string]string{}
	guarded := []string{"127.0.0.1", "127.9.9.9", "10.0.0.1", "169.254.169.254", "192.168.0.1", "::1", "fd00::1", "64:ff9b::7f00:1", "2002:7f00:1::1"}
	for did, target := range n.targets {
		for _, addr := range guarded {
			if target == "https://"+addr || target == "https://["+addr+"]" {
				open[did] = ""
			}
		}
	}
	n.run(t, open, "--allow-private-hosts")
	n.mu.Lock()
	defer n.mu.Unlock()
	for _, addr := range guarded {
		if n.reached[netip.MustParseAddr(addr)] == 0 {
			t.Errorf("with the guard open, %s was not reached either", addr)
		}
	}
}

// run has the program read the repos, and another job ask the relay, and gives the
// reason that each ended with.
func (n *internet) run(t *testing.T, repos map[string]string, flags ...string) map[string]string {
	t.Helper()
	dir := t.TempDir()
	proxy := "127.0.0.1:3128"
	environ := []string{"SSL_CERT_FILE=" + n.caFile, "GODEBUG=netdns=go", "NO_PROXY="}
	for _, name := range []string{"HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "http_proxy", "https_proxy", "all_proxy"} {
		environ = append(environ, name+"=http://"+proxy)
	}
	c := startChild(t, environ, append([]string{
		"serve", "--data-dir", dir, "--listen", "127.0.0.1:3333", "--relay", "https://relay.example.com", "--plc", "https://plc.example.com",
		"--host-rps", "1000", "--plc-rps", "1000",
	}, flags...)...)
	defer func() {
		if err := c.cmd.Process.Kill(); err != nil {
			t.Error(err)
		}
		c.wait()
	}()
	c.log.wait(t, "msg=serving")
	args := []string{"backfill", "create", "--data-dir", dir, "--collection", "com.example.note", "--watch"}
	for did := range repos {
		args = append(args, "--did", did)
	}
	want(t, exitOK, "", nil, args...)
	id := newestJob(t, dir).ID
	reasons := map[string]string{}
	var page struct {
		Repos []struct{ DID, Reason string }
	}
	if err := json.Unmarshal(ask(t, dir, "/admin/backfill/"+id+"/repos?limit=1000"), &page); err != nil {
		t.Fatal(err)
	}
	for _, r := range page.Repos {
		reasons[r.DID] = r.Reason
	}
	_, stdout, stderr := runs(t, nil, "backfill", "create", "--data-dir", dir, "--collection", "com.example.note", "--watch")
	if len(flags) == 0 && !strings.Contains(stdout+stderr, "refused_address") {
		t.Errorf("a relay that sends elsewhere: %s%s", stdout, stderr)
	}
	return reasons
}

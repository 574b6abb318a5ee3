package stream

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"github.com/bluesky-social/indigo/atproto/syntax"
	"github.com/coder/websocket"
)

// Wire is how a source speaks.
type Wire string

// The wires that are read.
const (
	WireV2    Wire = "jetstream_v2"
	WireV1    Wire = "jetstream_v1"
	WireRepos Wire = "subscribe_repos"
)

// Defaults of a Config, and bounds that are not to be set.
const (
	DefaultMaxFrame      = 8 << 20       // of a Jetstream
	DefaultMaxReposFrame = 5<<20 + 1<<16 // of subscribeRepos, whose frames have 5 MB at most
	DefaultSilence       = time.Minute
	DefaultPing          = 30 * time.Second

	maxSkipped     = 64 << 20 // of one frame that is too large; a longer one ends the connection
	maxCollections = 100      // that a Jetstream takes
	pingWait       = 10 * time.Second
)

// Config says what to read, and within which bounds. URL, Wire and HTTP must be set.
type Config struct {
	URL         string // ws or wss, host and port; a path in front of that of the wire may be given
	Wire        Wire
	Collections []syntax.NSID // of commits of a Jetstream; none: all
	HTTP        *http.Client  // that dials: Sockets of package network
	UserAgent   string
	MaxFrame    int64         // DefaultMaxFrame, DefaultMaxReposFrame
	Silence     time.Duration // without a frame or a pong until the connection is dead; DefaultSilence
	Ping        time.Duration // between two pings; DefaultPing
}

// Cursor says where to begin. The zero Cursor is the live tip.
type Cursor struct {
	Seq    int64     // of the last event that was seen: cursors are inclusive
	Time   time.Time // of a Jetstream, where Seq is zero
	Oldest bool      // of subscribeRepos: all that it remembers
}

// Errors of Read. Others are those of the connection and of the function that it hands to.
var (
	ErrSilent       = errors.New("neither frames nor pongs came")
	ErrCursorTooOld = errors.New("cursor is too old")
)

// Refused is what a source said instead of events, or to end them.
type Refused struct {
	Status  int    // HTTP; 0 on an open connection
	Name    string // of the error; may be empty
	Message string // as sent, bounded
}

func (r *Refused) Error() string {
	return fmt.Sprintf("refused with status %d: %s: %s", r.Status, r.Name, r.Message)
}

// Is reports whether it is what target says.
func (r *Refused) Is(target error) bool {
	return errors.Is(target, ErrCursorTooOld) && r.Name == "CursorTooOld"
}

// Reader reads one source. It may read again when Read has returned.
type Reader struct {
	cfg    Config
	base   url.URL
	buffer []byte
}

// New checks the configuration. It sends nothing.
func New(cfg Config) (*Reader, error) {
	var errs []error
	u, err := url.Parse(cfg.URL)
	switch {
	case err != nil:
		errs = append(errs, fmt.Errorf("URL: %w", err))
	case u.Scheme != "ws" && u.Scheme != "wss" || u.Host == "" || u.User != nil || u.RawQuery != "" || u.Fragment != "":
		errs = append(errs, fmt.Errorf("URL %q is not ws:// or wss:// with a host and no more than a path", cfg.URL))
	}
	if cfg.HTTP == nil {
		errs = append(errs, errors.New("HTTP is not set"))
	}
	switch cfg.Wire {
	case WireV1, WireV2:
		if len(cfg.Collections) > maxCollections {
			errs = append(errs, fmt.Errorf("%d collections: a Jetstream takes %d", len(cfg.Collections), maxCollections))
		}
		if cfg.MaxFrame == 0 {
			cfg.MaxFrame = DefaultMaxFrame
		}
	case WireRepos:
		if len(cfg.Collections) > 0 {
			errs = append(errs, errors.New("subscribeRepos has no filter by collection"))
		}
		if cfg.MaxFrame == 0 {
			cfg.MaxFrame = DefaultMaxReposFrame
		}
	default:
		errs = append(errs, fmt.Errorf("unknown wire %q", cfg.Wire))
	}
	if cfg.Silence == 0 {
		cfg.Silence = DefaultSilence
	}
	if cfg.Ping == 0 {
		cfg.Ping = DefaultPing
	}
	if cfg.MaxFrame < 0 || cfg.Silence < 0 || cfg.Ping < 0 {
		errs = append(errs, errors.New("a bound is negative"))
	}
	if err := errors.Join(errs...); err != nil {
		return nil, err
	}
	return &Reader{cfg: cfg, base: *u}, nil
}

// Read connects, and hands on events from the cursor on until the connection or ctx ends, or
// hand fails. It always returns an error, and blocks while hand does: what is not taken is
// not read.
func (r *Reader) Read(ctx context.Context, from Cursor, hand func(*Event) error) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	heard := newPulse()
	conn, err := r.dial(ctx, from, heard)
	if err != nil {
		return fmt.Errorf("connect to %s: %w", r.base.Host, err)
	}
	watched := make(chan struct{})
	go func() {
		defer close(watched)
		r.watch(ctx, conn, heard, cancel)
	}()
	err = r.frames(ctx, conn, heard, hand)
	if cause := context.Cause(ctx); cause != nil {
		err = cause
	}
	cancel(nil)
	<-watched
	_ = conn.CloseNow() // nothing is left to be said
	return fmt.Errorf("read %s of %s: %w", r.cfg.Wire, r.base.Host, err)
}

// address is the URL of the subscription.
func (r *Reader) address(from Cursor) string {
	u, q := r.base, url.Values{}
	path, list := "/xrpc/network.bsky.jetstream.subscribeEvents", "collections"
	switch r.cfg.Wire {
	case WireV1:
		path, list = "/subscribe", "wantedCollections"
	case WireRepos:
		path = "/xrpc/com.atproto.sync.subscribeRepos"
	case WireV2:
	}
	for _, c := range r.cfg.Collections {
		q.Add(list, c.String())
	}
	switch {
	case from.Seq > 0:
		q.Set("cursor", strconv.FormatInt(from.Seq, 10))
	case r.cfg.Wire == WireRepos && from.Oldest:
		q.Set("cursor", "0")
	case r.cfg.Wire != WireRepos && !from.Time.IsZero():
		q.Set("cursor", strconv.FormatInt(from.Time.UnixMicro(), 10))
	}
	u.Path, u.RawQuery = strings.TrimSuffix(u.Path, "/")+path, q.Encode()
	return u.String()
}

func (r *Reader) dial(ctx context.Context, from Cursor, heard *pulse) (*websocket.Conn, error) {
	header := http.Header{}
	if r.cfg.UserAgent != "" {
		header.Set("User-Agent", r.cfg.UserAgent)
	}
	conn, resp, err := websocket.Dial(ctx, r.address(from), &websocket.DialOptions{ //nolint:bodyclose // the library has read and closed it
		HTTPClient: r.cfg.HTTP, HTTPHeader: header, CompressionMode: websocket.CompressionDisabled,
		OnPongReceived: func(context.Context, []byte) { heard.beat() },
	})
	if err == nil {
		conn.SetReadLimit(-1) // frames bounds it, and skips what is longer
		return conn, nil
	}
	if resp == nil || resp.StatusCode == http.StatusSwitchingProtocols {
		return nil, err
	}
	refused := &Refused{Status: resp.StatusCode}
	if body, err := io.ReadAll(resp.Body); err == nil { // the library left 1 KiB of it
		var said struct{ Error, Message string }
		if json.Unmarshal(body, &said) == nil {
			refused.Name, refused.Message = said.Error, said.Message
		} else {
			refused.Message = string(body)
		}
	}
	return nil, refused
}

// pulse is when a source was heard last, and whether we listen.
type pulse struct {
	last      atomic.Int64 // nanoseconds since began
	listening atomic.Bool
	began     time.Time
}

func newPulse() *pulse { return &pulse{began: time.Now()} }

func (p *pulse) beat()                 { p.last.Store(int64(time.Since(p.began))) }
func (p *pulse) since() time.Duration  { return time.Since(p.began) - time.Duration(p.last.Load()) }
func (p *pulse) listen(listening bool) { p.beat(); p.listening.Store(listening) }

// watch pings, and ends a connection on which nothing is heard while we listen.
func (r *Reader) watch(ctx context.Context, conn *websocket.Conn, heard *pulse, end context.CancelCauseFunc) {
	ping := time.NewTicker(r.cfg.Ping)
	defer ping.Stop()
	check := time.NewTicker(max(r.cfg.Silence/4, time.Millisecond))
	defer check.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-check.C:
			if heard.listening.Load() && heard.since() > r.cfg.Silence {
				end(ErrSilent)
				return
			}
		case <-ping.C:
			if !heard.listening.Load() {
				continue // a pong would not be read
			}
			waiting, stop := context.WithTimeout(ctx, min(pingWait, r.cfg.Silence))
			_ = conn.Ping(waiting) // whether it was answered, heard tells
			stop()
		}
	}
}

// frames hands on what each frame says.
func (r *Reader) frames(ctx context.Context, conn *websocket.Conn, heard *pulse, hand func(*Event) error) error {
	for {
		heard.listen(true)
		typ, frame, err := r.frame(ctx, conn, heard)
		heard.listen(false)
		var e *Event
		if unfit, ok := errors.AsType[*bad](err); ok {
			e, err = &Event{Kind: KindBad, Reason: unfit.reason, Err: unfit.err}, nil
		} else if err == nil {
			e, err = r.parse(typ, frame)
		}
		if err == nil {
			err = hand(e)
		}
		if err != nil {
			return err
		}
	}
}

// frame reads one frame into the reader's buffer. One that is too large is read to its end
// and forgotten.
func (r *Reader) frame(ctx context.Context, conn *websocket.Conn, heard *pulse) (websocket.MessageType, []byte, error) {
	typ, in, err := conn.Reader(ctx)
	if err != nil {
		return typ, nil, err
	}
	in = beating{in, heard}
	buf := r.buffer[:0]
	for {
		if len(buf) == cap(buf) {
			buf = append(buf, 0)[:len(buf)]
		}
		n, err := in.Read(buf[len(buf):cap(buf)])
		buf = buf[:len(buf)+n]
		switch {
		case errors.Is(err, io.EOF):
			r.buffer = buf
			if int64(len(buf)) > r.cfg.MaxFrame {
				return typ, nil, badf(ReasonTooLarge, "frame of %d bytes", len(buf))
			}
			return typ, buf, nil
		case err != nil:
			return typ, nil, err
		case int64(len(buf)) > r.cfg.MaxFrame:
			r.buffer = nil
			n, err := io.Copy(io.Discard, io.LimitReader(in, maxSkipped))
			if err == nil && n == maxSkipped {
				err = fmt.Errorf("frame of more than %d bytes", maxSkipped)
			}
			if err != nil {
				return typ, nil, err
			}
			return typ, nil, badf(ReasonTooLarge, "frame of %d bytes", n+int64(len(buf)))
		}
	}
}

// beating notes that the source is heard whenever something of a frame comes.
type beating struct {
	io.Reader
	heard *pulse
}

func (b beating) Read(p []byte) (int, error) {
	n, err := b.Reader.Read(p)
	if n > 0 {
		b.heard.beat()
	}
	return n, err
}

// parse reads a frame of the wire. Its error ends the connection: what a source says last.
func (r *Reader) parse(typ websocket.MessageType, frame []byte) (*Event, error) {
	e := new(Event)
	var err error
	switch {
	case (typ == websocket.MessageBinary) != (r.cfg.Wire == WireRepos):
		err = badf(ReasonFraming, "%s frame", typ)
	case r.cfg.Wire == WireRepos:
		err = parseRepos(e, frame)
	case r.cfg.Wire == WireV1:
		err = parseV1(e, frame)
	default:
		err = parseV2(e, frame)
	}
	if unfit, ok := errors.AsType[*bad](err); ok {
		return &Event{Kind: KindBad, DID: e.DID, Seq: e.Seq, Reason: unfit.reason, Err: unfit.err}, nil
	}
	return e, err
}

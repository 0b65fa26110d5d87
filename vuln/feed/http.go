// SPDX-License-Identifier: AGPL-3.0-only

package feed

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/netip"
	"net/url"
	"os"
	"path/filepath"
	"time"

	"github.com/openthings-platform/openthings/problem"
)

const (
	maxRedirects = 5
	quiet        = time.Minute // a server that sends nothing for so long is given up
)

// checkURL takes https, and http of this machine only.
func checkURL(address string) (*url.URL, error) {
	u, err := url.Parse(address)
	if err != nil || u.Host == "" || u.User != nil || u.Fragment != "" {
		return nil, problem.Invalid("%.100q is no address such as https://example.com/feeds.", address).At("location")
	}
	if u.Scheme == "https" || u.Scheme == "http" && loopback(u.Hostname()) {
		return u, nil
	}
	return nil, problem.Invalid("A feed is fetched over https; http is for this machine only.").At("location")
}

func loopback(host string) bool {
	ip, err := netip.ParseAddr(host)
	return host == "localhost" || err == nil && ip.Unmap().IsLoopback()
}

// spooled is what is known of a file of the spool.
type spooled struct {
	Address string `json:"address"`
	Seen    Seen   `json:"seen"`
	Size    int64  `json:"size"`
}

// get fetches one file, or gives nil where it is as it was seen. What lies whole in the spool from an attempt that was
// interrupted is asked for with its own mark, and taken from there if the server says that it still holds.
func (f *Fetcher) get(ctx context.Context, r remote, was Seen, limit int64) (*File, Seen, error) {
	if _, err := checkURL(r.address); err != nil {
		return nil, was, err
	}
	ctx, stop := context.WithCancelCause(ctx)
	defer stop(nil)
	body, note := f.spoolNames(r.address)
	kept, have := readNote(note, r.address)
	if have {
		was = kept.Seen
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, r.address, nil)
	if err != nil {
		return nil, was, problem.Invalid("%.100q is no address", r.address)
	}
	req.Header.Set("User-Agent", "OpenThings")
	req.Header.Set("Accept-Encoding", "identity") // what is packed on the way cannot be compared with its length
	if was.ETag != "" {
		req.Header.Set("If-None-Match", was.ETag)
	}
	if was.Modified != "" {
		req.Header.Set("If-Modified-Since", was.Modified)
	}
	watch := f.Clock.NewTimer(quiet)
	alive := make(chan struct{}, 1)
	go f.giveUp(ctx, stop, watch.C, watch.Stop, alive)
	resp, err := f.client(r.address).Do(req)
	if err != nil {
		return nil, was, unreachable(ctx, r.address, err)
	}
	defer resp.Body.Close()
	switch {
	case resp.StatusCode == http.StatusNotModified && have:
		file, err := spoolFile(r, body, kept)
		return file, kept.Seen, err
	case resp.StatusCode == http.StatusNotModified && was != (Seen{}):
		return nil, was, nil
	case resp.StatusCode == http.StatusNotFound || resp.StatusCode == http.StatusGone:
		return nil, was, problem.NotFound("%s has no such file: %s", host(r.address), resp.Status).Because(errors.New(r.address))
	case resp.StatusCode != http.StatusOK:
		return nil, was, problem.Unavailable("%s answered %s", host(r.address), resp.Status).Because(errors.New(r.address))
	case resp.Header.Get("Content-Encoding") != "" && resp.Header.Get("Content-Encoding") != "identity":
		return nil, was, problem.Invalid("%s packs files that were asked for as they are", host(r.address))
	case resp.ContentLength > limit:
		return nil, was, problem.TooLarge("%s has %d bytes; at most %d are read", r.name, resp.ContentLength, limit)
	}
	seen := Seen{ETag: resp.Header.Get("ETag"), Modified: resp.Header.Get("Last-Modified")}
	if err := os.MkdirAll(f.Spool, 0o700); err != nil {
		return nil, was, fmt.Errorf("feed: %w", err)
	}
	os.Remove(note) //nolint:errcheck // what it describes is being replaced
	n, err := f.write(body, r.name, io.LimitReader(resp.Body, limit+1), alive)
	switch {
	case err != nil:
		return nil, was, unreachable(ctx, r.address, err)
	case n > limit:
		return nil, was, problem.TooLarge("%s has more than %d bytes", r.name, limit)
	case resp.ContentLength >= 0 && n != resp.ContentLength:
		return nil, was, problem.Unavailable("%s announced %d bytes and sent %d", host(r.address), resp.ContentLength, n)
	}
	s := spooled{Address: r.address, Seen: seen, Size: n}
	if seen != (Seen{}) {
		b, err := json.Marshal(s)
		if err != nil {
			return nil, was, fmt.Errorf("feed: %w", err)
		}
		if err := os.WriteFile(note, b, 0o600); err != nil {
			return nil, was, fmt.Errorf("feed: %w", err)
		}
	}
	file, err := spoolFile(r, body, s)
	return file, seen, err
}

// giveUp ends a request whose server has gone quiet. Each sign of life starts the wait anew.
func (f *Fetcher) giveUp(ctx context.Context, stop context.CancelCauseFunc, over <-chan time.Time, end func() bool, alive <-chan struct{}) {
	for {
		select {
		case <-ctx.Done():
			end()
			return
		case <-alive:
			end()
			t := f.Clock.NewTimer(quiet)
			over, end = t.C, t.Stop
		case <-over:
			stop(errQuiet)
			return
		}
	}
}

var errQuiet = errors.New("it sent nothing for a minute")

// write keeps what comes in the spool and tells how far it is.
func (f *Fetcher) write(name, shown string, in io.Reader, alive chan<- struct{}) (n int64, err error) {
	out, err := os.OpenFile(name, os.O_CREATE|os.O_TRUNC|os.O_WRONLY, 0o600)
	if err != nil {
		return 0, err
	}
	defer func() { err = errors.Join(err, out.Close()) }()
	buf := make([]byte, 256<<10)
	for {
		k, rerr := in.Read(buf)
		if k > 0 {
			select {
			case alive <- struct{}{}:
			default:
			}
			if _, err := out.Write(buf[:k]); err != nil {
				return n, err
			}
			n += int64(k)
			f.bytes += int64(k)
			if f.Progress != nil {
				f.Progress(Progress{File: shown, Bytes: f.bytes})
			}
		}
		if rerr == io.EOF {
			return n, nil
		}
		if rerr != nil {
			return n, rerr
		}
	}
}

// client follows few redirects, and none from https to http.
func (f *Fetcher) client(address string) *http.Client {
	c := *f.Client
	c.Timeout = 0 // a large file takes long; a quiet server does not
	c.CheckRedirect = func(req *http.Request, via []*http.Request) error {
		if len(via) > maxRedirects {
			return problem.Unavailable("%s sends on more than %d times", host(address), maxRedirects)
		}
		if _, err := checkURL(req.URL.String()); err != nil || via[0].URL.Scheme == "https" && req.URL.Scheme != "https" {
			return problem.Forbidden("feed.redirect", "%s sends on to an address without TLS.", host(address))
		}
		return nil
	}
	return &c
}

// unreachable says in words why a request failed.
func unreachable(ctx context.Context, address string, err error) error {
	var p *problem.Error
	switch cause := context.Cause(ctx); {
	case errors.As(err, &p):
		return p
	case errors.Is(cause, errQuiet):
		return problem.Unavailable("%s was given up: %v", host(address), cause)
	case errors.Is(err, io.ErrUnexpectedEOF):
		return problem.Unavailable("%s broke off in the middle of a file", host(address)).Because(err)
	}
	return problem.Unavailable("%s cannot be reached", host(address)).Because(err).
		Hint("look at the name, the certificate and the way there; what was imported before still counts")
}

func host(address string) string {
	u, err := url.Parse(address)
	if err != nil {
		return "the server"
	}
	return u.Host
}

func (f *Fetcher) spoolNames(address string) (body, note string) {
	sum := sha256.Sum256([]byte(address))
	body = filepath.Join(f.Spool, hex.EncodeToString(sum[:16]))
	return body, body + ".json"
}

// forget drops a file of the spool that turned out to be wrong.
func (f *Fetcher) forget(address string) {
	body, note := f.spoolNames(address)
	os.Remove(note) //nolint:errcheck // then it is fetched again
	os.Remove(body) //nolint:errcheck // the same
}

// Clear empties the spool, once what it held was taken.
func (f *Fetcher) Clear() error { return os.RemoveAll(f.Spool) }

func readNote(name, address string) (s spooled, ok bool) {
	b, err := os.ReadFile(name)
	return s, err == nil && json.Unmarshal(b, &s) == nil && s.Address == address
}

func spoolFile(r remote, body string, s spooled) (*File, error) {
	info, err := os.Stat(body)
	if err != nil || info.Size() != s.Size {
		return nil, problem.Unavailable("%s changed on this host while it was read", r.name).Because(err)
	}
	at, _ := http.ParseTime(s.Seen.Modified) // not said: zero
	return &File{Name: r.name, Size: s.Size, Origin: r.address, Modified: at, open: func() (section, error) { return os.Open(body) }}, nil
}

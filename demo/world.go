// SPDX-License-Identifier: AGPL-3.0-only

package demo

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/http/cookiejar"
	"net/url"
	"os"
	"os/exec"
	"strings"
	"sync"
	"time"

	"github.com/openthings-platform/openthings/api"
	"github.com/openthings-platform/openthings/app"
)

// The names of the throw-away tenant.
const (
	tenantName = "Lumen GmbH (demo)"
	personName = "Ada Berg"
	first      = "1.0.0" // the firmware that the line flashes
	second     = "1.1.0" // its update
	behind     = "city"  // the solution that is updated later
)

// world is what the steps hand on to each other.
type world struct {
	cfg      Config
	dir      string
	platform *platform
	roots    *x509.CertPool

	person *api.Client // the first person, signed in with a passkey
	api    *api.Client // a token of the owner role

	product, revision, revisionName string
	batch                           string
	solutions                       map[string]string // by name
	factory                         *factory
	images                          map[string]string // path by firmware version
	signing                         string            // folder of the manufacturer's keys
	releases                        map[string]string // id by version
	devices                         []*device
	before                          time.Time // an instant at which the records were known and all devices ran the first firmware
	caseID                          string
}

// close switches everything off.
func (w *world) close() {
	var wg sync.WaitGroup
	for _, d := range w.devices {
		wg.Go(d.switchOff)
	}
	wg.Wait()
	if w.platform != nil {
		w.platform.stop()
	}
}

func (w *world) get(ctx context.Context, path string, out any) error {
	return w.api.Do(ctx, http.MethodGet, path, nil, out)
}

func (w *world) post(ctx context.Context, path string, in, out any) error {
	return w.api.Do(ctx, http.MethodPost, path, in, out)
}

// run runs the openthings binary as a person would, and returns what it printed.
func (w *world) run(ctx context.Context, args ...string) (string, error) {
	cmd := exec.CommandContext(ctx, w.cfg.Binary, args...)
	cmd.Env = append(os.Environ(), "OPENTHINGS_URL="+w.platform.URL, "OPENTHINGS_CA="+w.platform.CA, "OPENTHINGS_TOKEN="+w.api.Token)
	var stderr strings.Builder
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		return string(out), fmt.Errorf("openthings %s: %w: %s", strings.Join(args[:2], " "), err, strings.TrimSpace(stderr.String()))
	}
	return string(out), nil
}

// until polls check twenty times a second until it is true, for at most limit and while the platform lives.
func (w *world) until(ctx context.Context, limit time.Duration, check func() (bool, error)) error {
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	for {
		ok, err := check()
		if ok {
			return nil
		}
		select {
		case <-ctx.Done():
			return errors.Join(fmt.Errorf("not within %s", limit), err)
		case <-w.platform.done:
			return errors.Join(errors.New("the platform has ended"), err)
		case <-tick.C:
		}
	}
}

// each runs fn for every device, eight at a time, and says how far it is.
func (w *world) each(p *progress, devices []*device, fn func(d *device) error) error {
	var wg sync.WaitGroup
	var mu sync.Mutex
	var errs []error
	done := 0
	slots := make(chan struct{}, 8)
	for _, d := range devices {
		slots <- struct{}{}
		wg.Go(func() {
			defer func() { <-slots }()
			err := fn(d)
			mu.Lock()
			defer mu.Unlock()
			done++
			p.say("%d of %d", done, len(devices))
			if err != nil {
				errs = append(errs, fmt.Errorf("%s: %w", d.serial, err))
			}
		})
	}
	wg.Wait()
	if len(errs) > 3 {
		errs = append(errs[:3], fmt.Errorf("and %d more", len(errs)-3))
	}
	return errors.Join(errs...)
}

// join enters by the one-time setup link as the first person.
func (w *world) join(ctx context.Context) (err error) {
	enter := strings.TrimPrefix(w.platform.Setup, w.platform.URL)
	if w.person, err = Join(ctx, w.platform.URL, w.platform.CA, enter, personName, tenantName); err != nil {
		return err
	}
	// The link is spent: a second try must be refused.
	if w.person.Do(ctx, http.MethodPost, enter+"/begin", map[string]string{"name": "Mallory", "organisation": "x"}, nil) == nil {
		return errors.New("the setup link worked twice")
	}
	return nil
}

// Join enters a platform as a person by a one-time link, which is a path, with a passkey made in software. The client that
// it returns is signed in.
func Join(ctx context.Context, url, ca, link, name, organisation string) (*api.Client, error) {
	c, err := api.NewClient(url, "", ca)
	if err != nil {
		return nil, err
	}
	if c.HTTP.Jar, err = cookiejar.New(nil); err != nil {
		return nil, err
	}
	var options struct {
		PublicKey struct {
			Challenge string
			RP        struct{ ID string }
		} `json:"publicKey"`
	}
	if err := c.Do(ctx, http.MethodPost, link+"/begin", map[string]string{"name": name, "organisation": organisation}, &options); err != nil {
		return nil, err
	}
	key, err := newPasskey()
	if err != nil {
		return nil, err
	}
	answer, err := key.create(options.PublicKey.RP.ID, options.PublicKey.Challenge, url)
	if err != nil {
		return nil, err
	}
	return c, c.Do(ctx, http.MethodPost, link+"/finish", answer, nil)
}

// invite makes a link for whoever watches the demo.
func (w *world) invite(ctx context.Context) (string, error) {
	var out struct{ Path string }
	err := app.Host(ctx, w.platform.dir, "/invite", map[string]any{"tenant": tenantName, "role": "owner", "name": "You"}, &out)
	return w.platform.URL + out.Path, err
}

// dial opens TLS to addr with a client certificate and reads until the other side has had its say: with TLS 1.3 a
// refusal arrives with the first read.
func (w *world) dial(ctx context.Context, addr string, cert tls.Certificate) (*tls.Conn, error) {
	host, _, _ := strings.Cut(addr, ":")
	d := tls.Dialer{Config: &tls.Config{MinVersion: tls.VersionTLS13, RootCAs: w.roots, ServerName: host, Certificates: []tls.Certificate{cert}}}
	c, err := d.DialContext(ctx, "tcp", addr)
	if err != nil {
		return nil, err
	}
	return c.(*tls.Conn), nil
}

// bill makes a bill of materials from the build information of a firmware image.
func (w *world) bill(ctx context.Context, version string) error {
	_, err := w.run(ctx, "sbom", "make", w.images[version], "--name", "lamp", "--version", version, "--out", w.billOf(version))
	return err
}

// upload sends a release through the command line and returns its id.
func (w *world) upload(ctx context.Context, targets, bill, image string) (id string, err error) {
	out, err := w.run(ctx, "release", "upload", "--json", "--targets", targets, "--sbom", bill, "--image", image)
	if err != nil {
		return "", err
	}
	var r struct{ ID string }
	return r.ID, json.Unmarshal([]byte(out), &r)
}

func query(kv ...string) string {
	q := url.Values{}
	for i := 0; i+1 < len(kv); i += 2 {
		q.Set(kv[i], kv[i+1])
	}
	return "?" + q.Encode()
}

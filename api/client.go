// SPDX-License-Identifier: AGPL-3.0-only

package api

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"strings"
	"time"

	"github.com/openthings-platform/openthings/problem"
)

// Client speaks to a platform's API; the command line and the demo use it.
type Client struct {
	Base  string // https://host:port
	Token string
	HTTP  *http.Client
}

// NewClient trusts the certificates of the PEM file ca beside nothing else; an empty ca means the system's roots.
func NewClient(base, token, ca string) (*Client, error) {
	conf := &tls.Config{MinVersion: tls.VersionTLS13}
	if ca != "" {
		b, err := os.ReadFile(ca)
		if err != nil {
			return nil, problem.Invalid("the CA file cannot be read").Hint("name it with --ca or OPENTHINGS_CA").Because(err)
		}
		conf.RootCAs = x509.NewCertPool()
		if !conf.RootCAs.AppendCertsFromPEM(b) {
			return nil, problem.Invalid("%s holds no certificate", ca)
		}
	}
	return &Client{Base: strings.TrimSuffix(base, "/"), Token: token, HTTP: &http.Client{
		Timeout:   2 * time.Minute,
		Transport: &http.Transport{TLSClientConfig: conf, ForceAttemptHTTP2: true, MaxIdleConnsPerHost: 16},
	}}, nil
}

// Do sends in as JSON (none if nil; an io.Reader as it is, with the content type of header) and decodes the answer into
// out: a *[]byte takes it raw. A problem comes back as *problem.Error.
func (c *Client) Do(ctx context.Context, method, path string, in, out any, header ...string) error {
	var body io.Reader
	kind := "application/json"
	switch v := in.(type) {
	case nil:
	case io.Reader:
		body, kind = v, "application/octet-stream"
	default:
		b, err := json.Marshal(v)
		if err != nil {
			return err
		}
		body = bytes.NewReader(b)
	}
	req, err := http.NewRequestWithContext(ctx, method, c.Base+path, body)
	if err != nil {
		return problem.Invalid("%s is not an address", c.Base).Because(err)
	}
	if body != nil {
		req.Header.Set("Content-Type", kind)
	}
	if c.Token != "" {
		req.Header.Set("Authorization", "Bearer "+c.Token)
	}
	for i := 0; i+1 < len(header); i += 2 {
		req.Header.Set(header[i], header[i+1])
	}
	resp, err := c.HTTP.Do(req)
	if err != nil {
		return problem.Unavailable("the platform at %s does not answer", c.Base).Hint("is it running, and is its CA the one in --ca?").Because(err)
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(io.LimitReader(resp.Body, 256<<20))
	if err != nil {
		return problem.Unavailable("the answer broke off").Because(err)
	}
	if resp.StatusCode >= 300 {
		return readProblem(resp.StatusCode, b)
	}
	switch v := out.(type) {
	case nil:
		return nil
	case *[]byte:
		*v = b
		return nil
	}
	if err := json.Unmarshal(b, out); err != nil {
		return fmt.Errorf("%s %s: the answer is not the JSON expected: %w", method, path, err)
	}
	return nil
}

// Copy writes the answer of a GET to w as it comes, however long it takes, and returns how many bytes that were. One that
// is cut short is an error.
func (c *Client) Copy(ctx context.Context, path string, w io.Writer) (int64, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, c.Base+path, nil)
	if err != nil {
		return 0, problem.Invalid("%s is not an address", c.Base).Because(err)
	}
	if c.Token != "" {
		req.Header.Set("Authorization", "Bearer "+c.Token)
	}
	patient := *c.HTTP
	patient.Timeout = 0
	resp, err := patient.Do(req)
	if err != nil {
		return 0, problem.Unavailable("the platform at %s does not answer", c.Base).Hint("is it running, and is its CA the one in --ca?").Because(err)
	}
	defer resp.Body.Close()
	if resp.StatusCode >= 300 {
		b, err := io.ReadAll(io.LimitReader(resp.Body, 1<<20))
		if err != nil {
			return 0, problem.Unavailable("the answer broke off").Because(err)
		}
		return 0, readProblem(resp.StatusCode, b)
	}
	n, err := io.Copy(w, resp.Body)
	if err != nil {
		return n, problem.Unavailable("the answer broke off after %d bytes", n).Because(err)
	}
	return n, nil
}

// readProblem turns an answer of RFC 9457 back into the problem it came from.
func readProblem(status int, body []byte) error {
	var p struct {
		Title  string          `json:"title"`
		Detail string          `json:"detail"`
		Type   string          `json:"type"`
		Hint   string          `json:"hint"`
		Rule   string          `json:"rule"`
		Errors []problem.Field `json:"errors"`
	}
	e := &problem.Error{Kind: problem.KindInternal}
	for kind, k := range problem.Kinds {
		if k.Status == status {
			e.Kind = kind
		}
	}
	if json.Unmarshal(body, &p) != nil || p.Title == "" {
		e.Text, e.Cause = fmt.Sprintf("the platform answered with status %d", status), errors.New(string(body[:min(len(body), 300)]))
		return e
	}
	e.Text, e.Help, e.Rule, e.Fields = p.Detail, p.Hint, p.Rule, p.Errors
	if e.Text == "" {
		e.Text = p.Title
	}
	return e
}

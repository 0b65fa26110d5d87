// SPDX-License-Identifier: AGPL-3.0-only

package openbao

import (
	"errors"
	"io"
	"net/http"
)

// maxAnswer bounds an answer of the engine, in bytes: its client reads it whole into memory, twice. It is a list of some
// 300,000 serial numbers; any other answer has a few kilobytes.
const maxAnswer = 16 << 20

var errLong = errors.New("openbao: the answer is longer than anything that was asked for")

// bounded cuts off answers that are too long.
type bounded struct{ base http.RoundTripper }

// RoundTrip implements http.RoundTripper.
func (b bounded) RoundTrip(r *http.Request) (*http.Response, error) {
	resp, err := b.base.RoundTrip(r)
	if err == nil {
		resp.Body = &boundedBody{resp.Body, maxAnswer}
	}
	return resp, err
}

type boundedBody struct {
	io.ReadCloser
	left int
}

// Read implements io.Reader.
func (b *boundedBody) Read(p []byte) (int, error) {
	if b.left <= 0 {
		return 0, errLong
	}
	n, err := b.ReadCloser.Read(p[:min(len(p), b.left)])
	b.left -= n
	return n, err
}

// SPDX-License-Identifier: AGPL-3.0-only

package webhook

import (
	"fmt"
	"io"
	"net/http"
	"strconv"
	"strings"
	"time"
)

// maxAnswer is how much of an answer is read, in bytes.
const maxAnswer = 4 << 10

// maxAfter is the longest rest that a receiver can ask for.
const maxAfter = 7 * 24 * time.Hour

// Answer is what a receiver said.
type Answer struct {
	Status string // "202 Accepted", as the receiver put it
	Body   []byte // its beginning
}

// Refused is an answer that is no success.
type Refused struct {
	Code   int
	Status string        // "503 Service Unavailable", as the receiver put it
	After  time.Duration // how long it wants to be left alone (Retry-After, in seconds); 0: it did not say, or asked for more than a week
}

// Gone says that the receiver wants nothing any more (410).
func (e *Refused) Gone() bool { return e.Code == http.StatusGone }

func (e *Refused) Error() string {
	if e.Gone() {
		return "the endpoint is gone (410)"
	}
	return fmt.Sprintf("status %d", e.Code)
}

// Do makes a request. The answer is there beside a *Refused too.
func Do(c *http.Client, req *http.Request) (Answer, error) {
	resp, err := c.Do(req)
	if err != nil {
		return Answer{}, err
	}
	defer resp.Body.Close()
	body, _ := io.ReadAll(io.LimitReader(resp.Body, maxAnswer)) // so that the connection can be used again
	a := Answer{resp.Status, body}
	if resp.StatusCode >= 200 && resp.StatusCode < 300 {
		return a, nil
	}
	seconds, err := strconv.Atoi(strings.TrimSpace(resp.Header.Get("Retry-After")))
	if err != nil || seconds < 0 || seconds > int(maxAfter/time.Second) {
		seconds = 0
	}
	return a, &Refused{resp.StatusCode, resp.Status, time.Duration(seconds) * time.Second}
}

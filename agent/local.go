// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"sync"
	"time"

	"github.com/openthings-platform/openthings/wire"
)

// Request is one line of JSON on Config.Socket, and one of:
//
//	{"stream":"env","values":{"temp":21.5}}
//	{"kind":"login","detail":"root on ttyS0","data":{"user":"root"}}
//	{"notices":["de","en"]}
//	{"notice":"support-2031","state":"acknowledged"}
//	{"support":true}
//
// Each is answered with a line, {"ok":true}, with what was asked for beside it, or {"ok":false,"error":"…"}; what that
// promises is what the method of Agent promises. Who may connect is up to the mode of the socket, 0660, and of the directory that it lies in.
type Request struct {
	Stream string             `json:"stream,omitempty"`
	Values map[string]float64 `json:"values,omitempty"`
	Kind   string             `json:"kind,omitempty"`
	Detail string             `json:"detail,omitempty"`
	Data   map[string]any     `json:"data,omitempty"`

	Notices *[]string `json:"notices,omitempty"` // languages, the dearest first
	Notice  string    `json:"notice,omitempty"`
	State   string    `json:"state,omitempty"` // of Notice: shown, acknowledged
	Support bool      `json:"support,omitempty"`
}

// Reply answers a Request.
type Reply struct {
	OK    bool   `json:"ok"`
	Error string `json:"error,omitempty"`

	Notices []Notice      `json:"notices,omitempty"`
	Support *wire.Support `json:"support,omitempty"`
}

const (
	localMost = 8        // programs that are connected at the same time
	localLine = 16 << 10 // bytes of a request
	localIdle = time.Minute
)

// serveLocal takes what other programs of the device hand in, until ctx ends. Without the socket the agent works on.
func (a *agent) serveLocal(ctx context.Context) {
	if err := os.Remove(a.Socket); err != nil && !errors.Is(err, os.ErrNotExist) {
		a.Log.Error("the local socket", "error", err)
		return
	}
	l, err := net.Listen("unix", a.Socket)
	if err == nil {
		err = os.Chmod(a.Socket, 0o660)
	}
	if err != nil {
		a.Log.Error("the local socket", "error", err)
		return
	}
	var open sync.WaitGroup
	defer open.Wait()
	stop := context.AfterFunc(ctx, func() { l.Close() })
	defer stop()
	slots := make(chan struct{}, localMost)
	for {
		c, err := l.Accept()
		if err != nil {
			if ctx.Err() == nil {
				a.Log.Error("the local socket", "error", err)
			}
			return
		}
		slots <- struct{}{}
		open.Go(func() {
			defer func() { <-slots }()
			defer c.Close()
			defer context.AfterFunc(ctx, func() { c.Close() })()
			a.local(c)
		})
	}
}

// local answers one program.
func (a *agent) local(c net.Conn) {
	in := bufio.NewScanner(c)
	in.Buffer(nil, localLine)
	for c.SetDeadline(time.Now().Add(localIdle)) == nil && in.Scan() {
		r, err := a.handIn(in.Bytes())
		if r.OK = err == nil; err != nil {
			r = Reply{Error: err.Error()}
		}
		if json.NewEncoder(c).Encode(r) != nil {
			return
		}
	}
}

func (a *agent) handIn(line []byte) (out Reply, err error) {
	var r Request
	if err := json.Unmarshal(line, &r); err != nil {
		return out, err
	}
	asked := 0
	for _, set := range []bool{r.Kind != "", r.Stream != "", r.Notices != nil, r.Notice != "", r.Support} {
		if set {
			asked++
		}
	}
	switch {
	case asked != 1:
	case r.Kind != "":
		return out, a.link(r.Kind, r.Detail, r.Data)
	case r.Stream != "" && len(r.Values) > 0:
		return out, a.keep(r.Stream, r.Values)
	case r.Notices != nil:
		out.Notices = a.noticesNow(*r.Notices)
		return out, nil
	case r.Notice != "":
		return out, a.markNotice(r.Notice, r.State)
	case r.Support:
		s, err := a.supportNow()
		out.Support = &s
		return out, err
	}
	return out, errors.New("a request is a stream with values, a kind of security event, the notices, one notice with its state, or the support")
}

// Ask sends one request to the agent that listens on the socket, and returns its answer; one that is not ok is an error.
func Ask(ctx context.Context, socket string, r Request) (out Reply, err error) {
	var d net.Dialer
	c, err := d.DialContext(ctx, "unix", socket)
	if err != nil {
		return out, err
	}
	defer c.Close()
	defer context.AfterFunc(ctx, func() { c.Close() })()
	if err := json.NewEncoder(c).Encode(r); err != nil {
		return out, err
	}
	if err := json.NewDecoder(c).Decode(&out); err != nil {
		return out, fmt.Errorf("%s: %w", socket, err)
	}
	if !out.OK {
		return out, errors.New(out.Error)
	}
	return out, nil
}

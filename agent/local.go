// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"net"
	"os"
	"sync"
	"time"
)

// Request is one line of JSON on Config.Socket. Either Stream and Values, or Kind and its like, are set:
//
//	{"stream":"env","values":{"temp":21.5}}
//	{"kind":"login","detail":"root on ttyS0","data":{"user":"root"}}
//
// Each is answered with a line, {"ok":true} or {"ok":false,"error":"…"}; what that promises is what Agent.Measure and
// Agent.Security promise. Who may connect is up to the mode of the socket, 0660, and of the directory that it lies in.
type Request struct {
	Stream string             `json:"stream,omitempty"`
	Values map[string]float64 `json:"values,omitempty"`
	Kind   string             `json:"kind,omitempty"`
	Detail string             `json:"detail,omitempty"`
	Data   map[string]any     `json:"data,omitempty"`
}

// Reply answers a Request.
type Reply struct {
	OK    bool   `json:"ok"`
	Error string `json:"error,omitempty"`
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
		r := Reply{OK: true}
		if err := a.handIn(in.Bytes()); err != nil {
			r = Reply{Error: err.Error()}
		}
		if json.NewEncoder(c).Encode(r) != nil {
			return
		}
	}
}

func (a *agent) handIn(line []byte) error {
	var r Request
	if err := json.Unmarshal(line, &r); err != nil {
		return err
	}
	switch {
	case r.Kind != "" && r.Stream == "":
		return a.link(r.Kind, r.Detail, r.Data)
	case r.Stream != "" && r.Kind == "" && len(r.Values) > 0:
		return a.keep(r.Stream, r.Values)
	}
	return errors.New("a request is a stream with values, or a kind of security event")
}

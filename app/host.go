// SPDX-License-Identifier: AGPL-3.0-only

package app

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"syscall"
	"time"

	"github.com/openthings-platform/openthings/problem"
)

// hostSocket is where an administrator of the machine speaks to a running platform, below the data folder.
const hostSocket = "host.sock"

// listenHost opens the unix socket: mode 0600, and each connection's user must be ours or root.
func listenHost(data string) (net.Listener, error) {
	path := filepath.Join(data, hostSocket)
	if c, err := net.Dial("unix", path); err == nil {
		c.Close()
		return nil, fmt.Errorf("another platform runs on %s", data)
	}
	if err := os.Remove(path); err != nil && !errors.Is(err, os.ErrNotExist) {
		return nil, err
	}
	l, err := net.Listen("unix", path) // the folder is 0700, so the moment before chmod is not a gap
	if err != nil {
		return nil, err
	}
	if err := os.Chmod(path, 0o600); err != nil {
		return nil, errors.Join(err, l.Close())
	}
	return &ownListener{l.(*net.UnixListener)}, nil
}

// ownListener refuses peers that are neither root nor the user the platform runs as.
type ownListener struct{ *net.UnixListener }

func (l *ownListener) Accept() (net.Conn, error) {
	for {
		c, err := l.AcceptUnix()
		if err != nil {
			return nil, err
		}
		if uid, err := peerUID(c); err == nil && (uid == 0 || int(uid) == os.Geteuid()) {
			return c, nil
		}
		c.Close()
	}
}

func peerUID(c *net.UnixConn) (uid uint32, err error) {
	raw, err := c.SyscallConn()
	if err != nil {
		return 0, err
	}
	var cred *syscall.Ucred
	cerr := raw.Control(func(fd uintptr) {
		cred, err = syscall.GetsockoptUcred(int(fd), syscall.SOL_SOCKET, syscall.SO_PEERCRED)
	})
	if err = errors.Join(err, cerr); err != nil {
		return 0, err
	}
	return cred.Uid, nil
}

// serveHost serves h on the socket until ctx ends.
func serveHost(ctx context.Context, l net.Listener, h http.Handler, log *slog.Logger) error {
	srv := &http.Server{Handler: h, ReadHeaderTimeout: 5 * time.Second, ErrorLog: slog.NewLogLogger(log.Handler(), slog.LevelWarn)}
	stop := context.AfterFunc(ctx, func() { srv.Close() })
	defer stop()
	if err := srv.Serve(l); !errors.Is(err, http.ErrServerClosed) {
		return err
	}
	return nil
}

// Host asks the platform that runs on the data folder to do what only an administrator of this machine may.
func Host(ctx context.Context, data, path string, in, out any) error {
	tr := &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return (&net.Dialer{}).DialContext(ctx, "unix", filepath.Join(data, hostSocket))
	}}
	defer tr.CloseIdleConnections()
	b, err := json.Marshal(in)
	if err != nil {
		return err
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, "http://host"+path, bytes.NewReader(b))
	if err != nil {
		return err
	}
	req.Header.Set("Content-Type", "application/json")
	resp, err := (&http.Client{Transport: tr}).Do(req)
	if err != nil {
		return problem.Unavailable("no platform runs on %s, or it runs as another user", data).Hint("start it with openthings up --data %s", data).Because(err)
	}
	defer resp.Body.Close()
	b, err = io.ReadAll(io.LimitReader(resp.Body, 1<<20))
	if err != nil {
		return err
	}
	if resp.StatusCode >= 300 {
		var p struct{ Detail, Hint, Rule string }
		if json.Unmarshal(b, &p) != nil || p.Detail == "" {
			p.Detail = string(b)
		}
		refusal := problem.Invalid("%s", p.Detail)
		if p.Rule != "" {
			refusal = problem.Forbidden(p.Rule, "%s", p.Detail)
		}
		return refusal.Hint("%s", p.Hint)
	}
	return json.Unmarshal(b, out)
}

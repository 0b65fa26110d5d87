// SPDX-License-Identifier: AGPL-3.0-only

package demo

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"github.com/openthings-platform/openthings/api"
	"github.com/openthings-platform/openthings/app"
)

// platform is "openthings up" as a child process, known by its sockets only.
type platform struct {
	app.Info
	dir  string // its data folder
	cmd  *exec.Cmd
	done chan struct{} // closed when the process has ended
	log  string        // file with its standard error
}

// startPlatform starts the binary on free loopback ports and waits until it serves.
func startPlatform(ctx context.Context, binary, dir, database string, flags ...string) (*platform, error) {
	p := &platform{dir: dir, done: make(chan struct{}), log: filepath.Join(dir, "platform.log")}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, err
	}
	logFile, err := os.OpenFile(p.log, os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o600)
	if err != nil {
		return nil, err
	}
	defer logFile.Close()
	args := []string{"up", "--data", dir, "--listen", "localhost:0", "--device-listen", "localhost:0", "--mqtt-listen", "localhost:0", "--coap-listen", "localhost:0", "--health-listen", "localhost:0", "--private-hooks", "--json"}
	if database != "" {
		args = append(args, "--database", database)
	}
	args = append(args, flags...)
	p.cmd = exec.Command(binary, args...)
	p.cmd.Stderr = logFile
	out, err := p.cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	// A platform must not outlive its demo, and Ctrl-C goes to the demo, which stops the platform in order.
	p.cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	if err := p.cmd.Start(); err != nil {
		return nil, err
	}
	ready := make(chan error, 1)
	go func() {
		defer close(p.done)
		ready <- json.NewDecoder(out).Decode(&p.Info)
		io.Copy(io.Discard, out) //nolint:errcheck // the pipe ends with the process
		p.cmd.Wait()             //nolint:errcheck // how it ended is seen in its log
	}()
	select {
	case err = <-ready:
	case <-ctx.Done():
		err = ctx.Err()
	}
	if err != nil {
		p.kill()
		tail, _ := os.ReadFile(p.log)
		return nil, fmt.Errorf("the platform did not start: %w\n%s", err, tail[max(0, len(tail)-2000):])
	}
	return p, nil
}

// stop ends the platform in order; one that does not is killed.
func (p *platform) stop() {
	p.cmd.Process.Signal(syscall.SIGTERM) //nolint:errcheck // it may have ended
	select {
	case <-p.done:
	case <-time.After(20 * time.Second):
		p.kill()
	}
}

// kill ends the platform without a chance to tidy up.
func (p *platform) kill() {
	p.cmd.Process.Kill() //nolint:errcheck // it may have ended
	<-p.done
}

// listeners asks the kernel which TCP ports the platform listens on (host:port).
func (p *platform) listeners() ([]string, error) {
	inodes := map[string]bool{}
	fds, err := filepath.Glob(fmt.Sprintf("/proc/%d/fd/*", p.cmd.Process.Pid))
	if err != nil {
		return nil, err
	}
	for _, fd := range fds {
		if l, err := os.Readlink(fd); err == nil && strings.HasPrefix(l, "socket:[") {
			inodes[strings.TrimSuffix(strings.TrimPrefix(l, "socket:["), "]")] = true
		}
	}
	var out []string
	for _, file := range []string{"tcp", "tcp6"} {
		b, err := os.ReadFile(fmt.Sprintf("/proc/%d/net/%s", p.cmd.Process.Pid, file))
		if errors.Is(err, os.ErrNotExist) {
			continue
		}
		if err != nil {
			return nil, err
		}
		for line := range strings.Lines(string(b)) {
			f := strings.Fields(line)
			if len(f) < 10 || f[3] != "0A" || !inodes[f[9]] { // 0A: LISTEN
				continue
			}
			_, hex, _ := strings.Cut(f[1], ":")
			var port int
			if _, err := fmt.Sscanf(hex, "%x", &port); err != nil {
				return nil, err
			}
			out = append(out, fmt.Sprintf("localhost:%d", port))
		}
	}
	return out, nil
}

// token asks the host socket for an API token.
func (p *platform) token(ctx context.Context, tenantName, role string) (*api.Client, error) {
	var t app.Token
	if err := app.Host(ctx, p.dir, "/token", map[string]any{"tenant": tenantName, "role": role, "create": true}, &t); err != nil {
		return nil, err
	}
	return api.NewClient(p.URL, t.Token, p.CA)
}

// get fetches a public page.
func (p *platform) get(ctx context.Context, path string) (string, error) {
	c, err := api.NewClient(p.URL, "", p.CA)
	if err != nil {
		return "", err
	}
	var b []byte
	err = c.Do(ctx, http.MethodGet, path, nil, &b)
	return string(b), err
}

// SPDX-License-Identifier: AGPL-3.0-only

package main

import (
	"bytes"
	"context"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

// TestStart executes every sh block of docs/start.md in one shell, in order. Three things differ from what a reader
// does: the programs are built by go instead of "make build", ports are free ones, and a block marked "again" is
// repeated for the reader, for at most a minute.
func TestStart(t *testing.T) {
	repo := repository(t)
	page, err := os.ReadFile(filepath.Join(repo, "docs", "start.md"))
	if err != nil {
		t.Fatal(err)
	}
	script := "set -eu -o pipefail\nagain() { end=$((SECONDS + 60)); until \"$@\"; do [ $SECONDS -lt $end ] || exit 1; sleep 0.2; done; }\n"
	blocks, err := shellBlocks(string(page))
	if err != nil {
		t.Fatal(err)
	}
	for i, b := range blocks {
		script += fmt.Sprintf("echo '--- block %d'\n", i+1)
		if b.again {
			// set -e does not reach into a condition, so each line of such a block is one link of a chain.
			script += fmt.Sprintf("block%d() { %s; }\nagain block%d\n", i+1, strings.Join(strings.Split(strings.TrimSpace(b.text), "\n"), " && "), i+1)
			continue
		}
		script += b.text
	}
	if !strings.Contains(script, "\nmake build\n") {
		t.Fatal("the page does not begin with make build")
	}
	script = strings.Replace(script, "\nmake build\n", "\n", 1)
	env := os.Environ()
	for name, port := range map[string]string{"LISTEN": "8443", "DEVICE_LISTEN": "8444", "MQTT_LISTEN": "8883", "HEALTH_LISTEN": "8480"} {
		addr := freeAddress(t)
		if !strings.Contains(script, "localhost:"+port) {
			t.Errorf("the page does not use port %s", port)
		}
		script = strings.ReplaceAll(script, "localhost:"+port, addr)
		env = append(env, "OPENTHINGS_"+name+"="+addr)
	}

	// The shell stands where the reader does: beside bin and demo.
	dir := t.TempDir()
	for link, to := range map[string]string{"bin": build(t, "openthings", "openthings-agent", "openthings-verify"), "demo": filepath.Join(repo, "demo")} {
		if err := os.Symlink(to, filepath.Join(dir, link)); err != nil {
			t.Fatal(err)
		}
	}
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, "bash")
	cmd.Dir, cmd.Env, cmd.Stdin = dir, env, strings.NewReader(script)
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) }
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	cmd.WaitDelay = 20 * time.Second
	err = cmd.Run()
	// What a failed page left running goes with its shell.
	syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) //nolint:errcheck // usually nobody is left
	if err != nil {
		lamp, _ := os.ReadFile(filepath.Join(dir, "start", "lamp.log"))
		t.Fatalf("%v\n%s\n%s", err, out.String(), lamp)
	}
	t.Log(out.String()) // go test -v shows what a reader sees
	for _, want := range []string{"PROVEN:", "chain whole:", "1.1.0", "CVE-2023-44487:"} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("the reader does not see %q", want)
		}
	}
}

type block struct {
	text  string
	again bool
}

// shellBlocks are the fenced sh blocks of a Markdown page.
func shellBlocks(page string) (out []block, err error) {
	for rest := page; ; {
		_, after, ok := strings.Cut(rest, "\n```")
		if !ok {
			return out, nil
		}
		info, after, _ := strings.Cut(after, "\n")
		text, after, ok := strings.Cut(after, "\n```")
		switch {
		case !ok:
			return nil, fmt.Errorf("a fence is not closed: %.40s", after)
		case info == "sh" || info == "sh again":
			out = append(out, block{text + "\n", info == "sh again"})
		default:
			return nil, fmt.Errorf("a block is marked %q: this page has sh and sh again only", info)
		}
		rest = after
	}
}

// freeAddress is a loopback address that nobody listens on.
func freeAddress(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "localhost:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return fmt.Sprintf("localhost:%d", l.Addr().(*net.TCPAddr).Port)
}

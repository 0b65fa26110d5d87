// SPDX-License-Identifier: AGPL-3.0-only

// Package testpeers starts programs of others that tests and benchmarks measure themselves against. Each has a module
// of its own below this folder, so that nothing of it enters the platform; it is built once and kept in the user's cache.
package testpeers

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
)

// Vault is a running server with the PKI engine of Vault, empty, with its storage in memory.
type Vault struct {
	Address string `json:"address"` // https://127.0.0.1:…
	Token   string `json:"token"`   // may do everything
	CA      string `json:"ca"`      // PEM, signs the server's certificate
	Unseal  string `json:"unseal"`  // hex, opens it again after it was sealed

	cmd   *exec.Cmd
	stdin io.Closer
}

// StartVault builds the server if this machine has not yet, and starts it. It ends with Stop, or with this process.
func StartVault(ctx context.Context) (*Vault, error) {
	bin, err := build(ctx, "vault")
	if err != nil {
		return nil, err
	}
	cmd := exec.CommandContext(ctx, bin)
	cmd.Stderr = os.Stderr
	in, err := cmd.StdinPipe()
	if err != nil {
		return nil, err
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	v := &Vault{cmd: cmd, stdin: in}
	if err := json.NewDecoder(out).Decode(v); err != nil {
		return nil, errors.Join(fmt.Errorf("testpeers: vault said nothing: %w", err), v.Stop())
	}
	return v, nil
}

// PID is the process to measure.
func (v *Vault) PID() int { return v.cmd.Process.Pid }

// Stop ends the server; all that it held is gone.
func (v *Vault) Stop() error { return errors.Join(v.stdin.Close(), v.cmd.Wait()) }

// build returns the program of the module below testpeers. Its name in the cache is made of its sources and the
// compiler, so that an old one is never taken for a new one.
func build(ctx context.Context, name string) (string, error) {
	out, err := exec.CommandContext(ctx, "go", "env", "GOMOD").Output()
	if err != nil {
		return "", fmt.Errorf("testpeers: go env: %w", err)
	}
	src := filepath.Join(filepath.Dir(strings.TrimSpace(string(out))), "testpeers", name)
	h := sha256.New()
	fmt.Fprintln(h, runtime.Version())
	for _, f := range []string{"go.mod", "go.sum", "main.go"} {
		b, err := os.ReadFile(filepath.Join(src, f))
		if err != nil {
			return "", fmt.Errorf("testpeers: %w", err)
		}
		fmt.Fprintf(h, "%s %d\n%s", f, len(b), b)
	}
	cache, err := os.UserCacheDir()
	if err != nil {
		return "", err
	}
	dir := filepath.Join(cache, "openthings-testpeers")
	bin := filepath.Join(dir, name+"-"+hex.EncodeToString(h.Sum(nil)[:8]))
	if _, err := os.Stat(bin); err == nil {
		return bin, nil
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return "", err
	}
	fresh, err := os.MkdirTemp(dir, name+"-*") // so that two builders at once harm neither
	if err != nil {
		return "", err
	}
	defer os.RemoveAll(fresh)
	cmd := exec.CommandContext(ctx, "go", "build", "-ldflags", "-s -w", "-o", filepath.Join(fresh, name), ".")
	cmd.Dir, cmd.Env = src, append(os.Environ(), "CGO_ENABLED=0", "GOFLAGS=-buildvcs=false -mod=readonly")
	if out, err := cmd.CombinedOutput(); err != nil {
		return "", fmt.Errorf("testpeers: go build of %s: %w\n%s", src, err, out)
	}
	return bin, os.Rename(filepath.Join(fresh, name), bin)
}

// SPDX-License-Identifier: AGPL-3.0-only

// Package testpeers starts programs of others that tests and benchmarks measure themselves against. Each has a module
// of its own below this folder, so that nothing of it enters the platform; it is made once and kept in the user's cache.
package testpeers

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os/exec"
)

// Vault is a running server with the PKI engine of Vault, empty at its start.
type Vault struct {
	Address string `json:"address"` // https://127.0.0.1:…
	Token   string `json:"token"`   // may do everything
	CA      string `json:"ca"`      // PEM, signs the server's certificate
	Unseal  string `json:"unseal"`  // hex, opens it again after it was sealed

	cmd   *exec.Cmd
	stdin io.Closer
}

// StartVault builds the server if this machine has not yet, and starts it, with its storage in memory. It ends with Stop,
// or with this process.
func StartVault(ctx context.Context) (*Vault, error) { return startVault(ctx) }

// StartDurableVault is StartVault with storage in files below dir, each on disk before its writer goes on.
func StartDurableVault(ctx context.Context, dir string) (*Vault, error) { return startVault(ctx, dir) }

func startVault(ctx context.Context, args ...string) (*Vault, error) {
	bin, err := build(ctx, "vault", ".")
	if err != nil {
		return nil, err
	}
	cmd := exec.CommandContext(ctx, bin, args...)
	in, out, err := start(cmd)
	if err != nil {
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

// Stop ends the server; what it held in memory is gone.
func (v *Vault) Stop() error { return errors.Join(v.stdin.Close(), v.cmd.Wait()) }

// SPDX-License-Identifier: AGPL-3.0-only

package testpeers

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
)

// build returns a program: of the package in the module of that name below testpeers, "." for the module's own. For several
// packages it returns a folder with their programs.
func build(ctx context.Context, name string, pkgs ...string) (string, error) {
	src, err := source(ctx, name)
	if err != nil {
		return "", err
	}
	code, err := filepath.Glob(filepath.Join(src, "*.go"))
	if err != nil {
		return "", err
	}
	files := []string{"go.mod", "go.sum"}
	for _, f := range code {
		files = append(files, filepath.Base(f))
	}
	return kept(src, name, files, func(fresh string) error {
		if len(pkgs) > 1 {
			if err := os.Mkdir(fresh, 0o700); err != nil {
				return err
			}
		}
		cmd := exec.CommandContext(ctx, "go", append([]string{"build", "-trimpath", "-ldflags", "-s -w", "-o", fresh}, pkgs...)...)
		cmd.Dir, cmd.Env = src, append(os.Environ(), "CGO_ENABLED=0", "GOFLAGS=-buildvcs=false -mod=readonly")
		if out, err := cmd.CombinedOutput(); err != nil {
			return fmt.Errorf("testpeers: go build of %s: %w\n%s", src, err, out)
		}
		return nil
	})
}

// install returns a folder with the script client.mjs below testpeers and the packages that its lock file pins by
// integrity hash.
func install(ctx context.Context, name string) (string, error) {
	src, err := source(ctx, name)
	if err != nil {
		return "", err
	}
	files := []string{"package.json", "package-lock.json", "client.mjs"}
	return kept(src, name, files, func(fresh string) error {
		if err := os.Mkdir(fresh, 0o700); err != nil {
			return err
		}
		for _, f := range files {
			b, err := os.ReadFile(filepath.Join(src, f))
			if err != nil {
				return err
			}
			if err := os.WriteFile(filepath.Join(fresh, f), b, 0o600); err != nil {
				return err
			}
		}
		cmd := exec.CommandContext(ctx, "npm", "ci", "--ignore-scripts", "--no-audit", "--no-fund", "--loglevel=error")
		cmd.Dir = fresh
		if out, err := cmd.CombinedOutput(); err != nil {
			return fmt.Errorf("testpeers: npm ci of %s: %w\n%s", src, err, out)
		}
		return nil
	})
}

// source is the folder of that name below testpeers.
func source(ctx context.Context, name string) (string, error) {
	out, err := exec.CommandContext(ctx, "go", "env", "GOMOD").Output()
	if err != nil {
		return "", fmt.Errorf("testpeers: go env: %w", err)
	}
	return filepath.Join(filepath.Dir(strings.TrimSpace(string(out))), "testpeers", name), nil
}

// kept returns what produce made of the files, from the user's cache if it was made before. Its name there is made of
// the files and the compiler, so that an old one is never taken for a new one.
func kept(src, name string, files []string, produce func(fresh string) error) (string, error) {
	h := sha256.New()
	fmt.Fprintln(h, runtime.Version())
	for _, f := range files {
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
	made := filepath.Join(dir, name+"-"+hex.EncodeToString(h.Sum(nil)[:8]))
	if _, err := os.Stat(made); err == nil {
		return made, nil
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return "", err
	}
	begun, err := os.MkdirTemp(dir, name+"-*") // so that two makers at once harm neither
	if err != nil {
		return "", err
	}
	defer os.RemoveAll(begun)
	fresh := filepath.Join(begun, name)
	if err := produce(fresh); err != nil {
		return "", err
	}
	if err := os.Rename(fresh, made); err != nil {
		if _, late := os.Stat(made); late == nil { // another was faster; a folder does not replace a folder
			return made, nil
		}
		return "", err
	}
	return made, nil
}

// start starts a program that hears on its standard input, answers on its standard output and complains on ours.
func start(cmd *exec.Cmd) (in io.WriteCloser, out io.Reader, err error) {
	cmd.Stderr = os.Stderr
	if in, err = cmd.StdinPipe(); err != nil {
		return nil, nil, err
	}
	if out, err = cmd.StdoutPipe(); err != nil {
		return nil, nil, err
	}
	if err := cmd.Start(); err != nil {
		return nil, nil, fmt.Errorf("testpeers: %s: %w", cmd.Path, err)
	}
	return in, out, nil
}

// SPDX-License-Identifier: AGPL-3.0-only

// Command race lets two goroutines ask the database, sign with one key, match one expression and pack, and counts their turns:
// with a lock, or without one when its argument is "unlocked". The race detector must see the one and keep still about the other.
package main

import (
	"compress/gzip"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"regexp"
	"sync"

	"github.com/openthings-platform/openthings/clock"
	"github.com/openthings-platform/openthings/store"
)

func main() {
	if err := run(len(os.Args) > 1 && os.Args[1] == "unlocked"); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func run(unlocked bool) error {
	dir, err := os.MkdirTemp("", "openthings-race-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	ctx := context.Background()
	db, err := store.Open(ctx, store.Config{URL: "sqlite://" + filepath.Join(dir, "platform.db"), Clock: clock.System})
	if err != nil {
		return err
	}
	defer db.Close()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return err
	}
	word := regexp.MustCompile(`^(a+)(b|c)*$`)
	var turns int
	var lock sync.Mutex
	var both sync.WaitGroup
	for range 2 {
		both.Go(func() {
			for range 100 {
				var one int
				if err := db.QueryRow(ctx, "SELECT 1").Scan(&one); err != nil {
					panic(err)
				}
				digest := sha256.Sum256([]byte("turn"))
				signed, err := ecdsa.SignASN1(rand.Reader, key, digest[:])
				if err != nil || !ecdsa.VerifyASN1(&key.PublicKey, digest[:], signed) {
					panic(err)
				}
				packed := gzip.NewWriter(io.Discard)
				if _, err := packed.Write(signed); err != nil || packed.Close() != nil || !word.MatchString("aaabcb") {
					panic(err)
				}
				if !unlocked {
					lock.Lock()
				}
				turns += one
				if !unlocked {
					lock.Unlock()
				}
			}
		})
	}
	both.Wait()
	return nil
}

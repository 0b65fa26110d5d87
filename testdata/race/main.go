// SPDX-License-Identifier: AGPL-3.0-only

// Command race asks the database from two goroutines and counts their turns: with a lock, or without one when its
// argument is "unlocked". The race detector must see the one and keep still about the other.
package main

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
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

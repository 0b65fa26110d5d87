// SPDX-License-Identifier: AGPL-3.0-only

package self

import (
	"context"
	"os"
	"sync"
	"time"

	"github.com/openthings-platform/openthings/api"
	"github.com/openthings-platform/openthings/clock"
	"github.com/openthings-platform/openthings/problem"
)

// Config is what the room needs.
type Config struct {
	Clock clock.Clock
	// Found says what the feeds of this installation find in the running program, for a tenant. Nil knows nothing.
	Found func(ctx context.Context, tenant string, p Program) (Found, error)
}

// Found is what the feeds of an installation find in the program.
type Found struct {
	Release string   // under which the program is watched; empty: not in this tenant
	Open    []string // names of vulnerabilities that nobody has decided to be harmless, the most urgent first
	Decided int      // that somebody has decided to be harmless
	Feeds   int      // imported; without one nothing was looked for
	Newest  time.Time
}

// Service is the room.
type Service struct {
	cfg     Config
	program func() (Program, error) // of the running file, read once

	mu   sync.Mutex
	day  time.Time // of file
	file File
}

// New makes the room. The program's file is read when it is first asked for.
func New(cfg Config) *Service {
	return &Service{cfg: cfg, program: sync.OnceValues(func() (Program, error) {
		f, err := Running()
		if err != nil {
			return Program{}, err
		}
		defer f.Close()
		return Read(f, Stamped())
	})}
}

// ReadFile reads a program by its path; empty: the running one.
func ReadFile(path string, r Release) (Program, error) {
	f, err := Running()
	if path != "" {
		f, err = os.Open(path)
	}
	if err != nil {
		return Program{}, problem.Invalid("The program cannot be read.").Because(err)
	}
	defer f.Close()
	return Read(f, r)
}

// Program is the running program.
func (s *Service) Program() (Program, error) { return s.program() }

// File is what the platform publishes about itself, made once a day.
func (s *Service) File() (File, error) {
	p, err := s.program()
	if err != nil {
		return File{}, err
	}
	now := s.cfg.Clock.Now().UTC()
	s.mu.Lock()
	defer s.mu.Unlock()
	if day := now.Truncate(24 * time.Hour); !day.Equal(s.day) {
		f, err := p.Make(now)
		if err != nil {
			return File{}, err
		}
		s.day, s.file = day, f
	}
	return s.file, nil
}

// Rate of one address at the public documents: a reader turns pages, a robot waits.
var limits = api.Limits{PerSecond: 5, Burst: 60}

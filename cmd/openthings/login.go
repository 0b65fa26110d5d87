// SPDX-License-Identifier: AGPL-3.0-only

package main

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net/http"
	"os"
	"os/user"
	"path/filepath"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/openthings-platform/openthings/api"
	"github.com/openthings-platform/openthings/problem"
	"github.com/openthings-platform/openthings/tenant"
)

// loginCommand lets a person act from a terminal: what only people may do, such as declaring awareness, takes more than a
// token.
func loginCommand() *cobra.Command {
	r := &remote{}
	c := &cobra.Command{
		Use: "login", Short: "Act as yourself: a person signed in with a passkey lets this terminal in, for 12 hours", Args: cobra.NoArgs,
		Long: "Act as yourself. Decisions of the law are a person's; a token is a program's and is refused there.\n" +
			"The code that is shown is typed on a page of the console, by you, signed in with your passkey. What comes back is\n" +
			"kept in " + sessionsName + " below your configuration folder, readable by you alone, and used where OPENTHINGS_TOKEN is not set.",
		RunE: func(c *cobra.Command, _ []string) error {
			cl, err := api.NewClient(r.url, "", r.ca)
			if err != nil {
				return err
			}
			var w tenant.CommandLine
			if err := cl.Do(c.Context(), http.MethodPost, tenant.CommandLinePath+"/begin", map[string]string{"origin": whoAndWhere()}, &w); err != nil {
				return err
			}
			fmt.Fprintf(c.ErrOrStderr(), "Open %s%s and type %s\n", cl.Base, w.Page, w.Code)
			e, err := awaitPerson(c.Context(), cl, w)
			if err != nil {
				return err
			}
			if err := keepSession(cl.Base, e); err != nil {
				return err
			}
			_, err = fmt.Fprintf(c.OutOrStdout(), "signed in as %s until %s\n", e.Name, instant(e.Until))
			return err
		},
	}
	r.connect(c)
	return c
}

func logoutCommand() *cobra.Command {
	r := &remote{}
	c := &cobra.Command{
		Use: "logout", Short: "End the session of this terminal", Args: cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			base := strings.TrimSuffix(r.url, "/")
			e := keptSession(base)
			if e.Session == "" {
				return problem.Conflict("nobody is signed in to %s here", base)
			}
			cl, err := api.NewClient(r.url, e.Session, r.ca)
			if err != nil {
				return err
			}
			// A session that has ended already is as good as one that is ended now.
			if err := cl.Do(c.Context(), http.MethodPost, tenant.CommandLinePath+"/end", nil, new([]byte)); err != nil && !problem.Is(err, problem.KindUnauthenticated) {
				return err
			}
			return keepSession(base, tenant.Entered{})
		},
	}
	r.connect(c)
	return c
}

// whoAndWhere is what the person sees who lets this terminal in.
func whoAndWhere() string {
	name := "somebody"
	if u, err := user.Current(); err == nil {
		name = u.Username
	}
	host, err := os.Hostname()
	return name + "@" + cmp.Or(host, fmt.Sprint(err))
}

// awaitPerson asks until a person has typed the code.
func awaitPerson(ctx context.Context, cl *api.Client, w tenant.CommandLine) (e tenant.Entered, err error) {
	every := time.NewTicker(time.Duration(max(w.Every, 1)) * time.Second)
	defer every.Stop()
	for {
		select {
		case <-ctx.Done():
			return e, ctx.Err()
		case <-every.C:
		}
		if err := cl.Do(ctx, http.MethodPost, tenant.CommandLinePath+"/session", map[string]string{"secret": w.Secret}, &e); err != nil || e.Session != "" {
			return e, err
		}
	}
}

// sessionsName is the file of the sessions, by the platform's address.
const sessionsName = "openthings/sessions.json"

func sessionsFile() (string, error) {
	dir, err := os.UserConfigDir()
	return filepath.Join(dir, sessionsName), err
}

func keptSessions() (all map[string]tenant.Entered, err error) {
	file, err := sessionsFile()
	if err != nil {
		return nil, err
	}
	b, err := os.ReadFile(file)
	if errors.Is(err, fs.ErrNotExist) {
		return map[string]tenant.Entered{}, nil
	}
	if err != nil {
		return nil, err
	}
	return all, json.Unmarshal(b, &all)
}

// keptSession is the session at a platform; the zero value where there is none that still counts.
func keptSession(base string) tenant.Entered {
	all, err := keptSessions()
	if e := all[base]; err == nil && time.Now().Before(e.Until) {
		return e
	}
	return tenant.Entered{}
}

// keepSession keeps a session, or forgets the one that there was when e is the zero value. The file is replaced as a whole.
func keepSession(base string, e tenant.Entered) error {
	all, err := keptSessions()
	if err != nil {
		return err
	}
	delete(all, base)
	if e.Session != "" {
		all[base] = e
	}
	file, err := sessionsFile()
	if err != nil {
		return err
	}
	if err := os.MkdirAll(filepath.Dir(file), 0o700); err != nil {
		return err
	}
	b, err := json.Marshal(all)
	if err != nil {
		return err
	}
	f, err := os.CreateTemp(filepath.Dir(file), "sessions-*") // 0600
	if err != nil {
		return err
	}
	if _, err := f.Write(b); err != nil {
		return errors.Join(err, f.Close(), os.Remove(f.Name()))
	}
	if err := f.Close(); err != nil {
		return errors.Join(err, os.Remove(f.Name()))
	}
	return os.Rename(f.Name(), file)
}

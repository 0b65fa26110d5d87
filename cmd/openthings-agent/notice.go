// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/openthings-platform/openthings/agent"
	"github.com/openthings-platform/openthings/wire"
)

// localTimeout is how long the agent on the socket has for its answer.
const localTimeout = 30 * time.Second

// notices prints what the device shows: of the running agent if a socket is given, else of the state directory.
func notices(ctx context.Context, f *flag.FlagSet, dir *string, args []string, out io.Writer) error {
	socket := f.String("socket", "", "unix socket of the running agent; without it the state directory is read")
	lang := f.String("lang", "", "languages, the dearest first, such as de,en")
	asJSON := f.Bool("json", false, "as JSON")
	if err := f.Parse(args); err != nil {
		return err
	}
	langs := strings.FieldsFunc(*lang, func(r rune) bool { return r == ',' })
	var list []agent.Notice
	var err error
	if *socket != "" {
		ctx, cancel := context.WithTimeout(ctx, localTimeout)
		defer cancel()
		var r agent.Reply
		r, err = agent.Ask(ctx, *socket, agent.Request{Notices: &langs})
		list = r.Notices
	} else {
		list, err = agent.ReadNotices(*dir, langs...)
	}
	if err != nil {
		return err
	}
	if *asJSON {
		if list == nil {
			list = []agent.Notice{}
		}
		return json.NewEncoder(out).Encode(list)
	}
	for i, n := range list {
		if i > 0 {
			fmt.Fprintln(out)
		}
		fmt.Fprintf(out, "%s  %s, %s", n.ID, n.Severity, n.Kind)
		if n.State != "" {
			fmt.Fprintf(out, ", %s", n.State)
		}
		fmt.Fprintf(out, "\n%s\n%s\n", n.Title, n.Text)
		if n.URL != "" {
			fmt.Fprintln(out, n.URL)
		}
	}
	return nil
}

// notice tells the running agent that a notice was shown or acknowledged.
func notice(ctx context.Context, f *flag.FlagSet, args []string) error {
	socket := f.String("socket", "", "unix socket of the running agent")
	states := map[string]string{"shown": wire.NoticeShown, "acknowledge": wire.NoticeAcknowledged}
	state := ""
	if len(args) > 0 && states[args[0]] != "" {
		state, args = states[args[0]], args[1:]
	}
	if err := f.Parse(args); err != nil {
		return err
	}
	if state == "" || f.NArg() != 1 || *socket == "" {
		return errors.New("use: openthings-agent notice shown|acknowledge -socket PATH ID")
	}
	ctx, cancel := context.WithTimeout(ctx, localTimeout)
	defer cancel()
	_, err := agent.Ask(ctx, *socket, agent.Request{Notice: f.Arg(0), State: state})
	return err
}

// support prints until when the maker supports this device.
func support(ctx context.Context, f *flag.FlagSet, dir *string, args []string, out io.Writer) error {
	socket := f.String("socket", "", "unix socket of the running agent; without it the state directory is read")
	asJSON := f.Bool("json", false, "as JSON")
	if err := f.Parse(args); err != nil {
		return err
	}
	var s wire.Support
	var err error
	if *socket != "" {
		ctx, cancel := context.WithTimeout(ctx, localTimeout)
		defer cancel()
		var r agent.Reply
		if r, err = agent.Ask(ctx, *socket, agent.Request{Support: true}); err == nil && r.Support != nil {
			s = *r.Support
		}
	} else {
		s, err = agent.ReadSupport(*dir)
	}
	if err != nil {
		return err
	}
	if *asJSON {
		return json.NewEncoder(out).Encode(s)
	}
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	for _, row := range [][2]string{{"product", s.Product}, {"manufacturer", s.Maker}, {"security support ends", s.End}, {"last instant", time.UnixMilli(s.Until).UTC().Format(time.RFC3339)}, {"more", s.URL}} {
		if row[1] != "" {
			fmt.Fprintf(w, "%s\t%s\n", row[0], row[1])
		}
	}
	return w.Flush()
}

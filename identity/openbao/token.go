// SPDX-License-Identifier: AGPL-3.0-only

package openbao

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"os"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/openbao/openbao/api/v2"

	"github.com/openthings-platform/openthings/problem"
)

// token is what we show the engine. It is never logged.
type token struct {
	file string

	mu    sync.Mutex // guards value
	value string
}

// load reads the file, if there is one.
func (t *token) load() error {
	if t.file != "" {
		st, err := os.Stat(t.file)
		if err != nil {
			return problem.Invalid("The token file of the PKI engine cannot be read.").Because(err)
		}
		if st.Mode().Perm()&0o077 != 0 {
			return problem.Forbidden("issuer.token-file", "The token file %s can be read by others.", t.file).Hint("chmod 600 %s", t.file)
		}
		b, err := os.ReadFile(t.file)
		if err != nil {
			return problem.Invalid("The token file of the PKI engine cannot be read.").Because(err)
		}
		t.mu.Lock()
		t.value = strings.TrimSpace(string(b))
		t.mu.Unlock()
	}
	if t.now() == "" {
		return problem.Invalid("There is no token for the PKI engine.").Hint("Name a file that holds it with --bao-token-file, or set OPENTHINGS_BAO_TOKEN.")
	}
	return nil
}

func (t *token) now() string {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.value
}

// call asks the engine with the token of now. If it is refused and the file holds another one by now, once more.
func (is *Issuer) call(ctx context.Context, ask func(*api.Client) (*api.Secret, error)) (*api.Secret, error) {
	tried := is.token.now()
	for {
		c, err := is.with(tried)
		if err != nil {
			return nil, err
		}
		s, err := ask(c)
		if answered(err, http.StatusForbidden, "") && is.token.load() == nil && is.token.now() != tried {
			tried = is.token.now()
			continue
		}
		return s, is.failed("call", err)
	}
}

// with is the client that shows the token. It is made anew and not with Client.Clone, which forgets that the environment
// is not to be read: a BAO_NAMESPACE of the machine's other programs would send our calls elsewhere.
func (is *Issuer) with(token string) (*api.Client, error) {
	is.mu.Lock()
	defer is.mu.Unlock()
	if is.shows != nil && is.shows.Token() == token {
		return is.shows, nil
	}
	c, err := api.NewClient(is.config)
	if err != nil {
		return nil, err
	}
	c.SetToken(token)
	is.shows = c
	return c, nil
}

// write, read and list are calls below the mount. A read of nothing is nil without an error.
func (is *Issuer) write(ctx context.Context, path string, body map[string]any) (*api.Secret, error) {
	return is.call(ctx, func(c *api.Client) (*api.Secret, error) {
		return c.Logical().WriteWithContext(ctx, is.cfg.Mount+"/"+path, body)
	})
}

func (is *Issuer) read(ctx context.Context, path string) (*api.Secret, error) {
	return is.call(ctx, func(c *api.Client) (*api.Secret, error) {
		return c.Logical().ReadWithContext(ctx, is.cfg.Mount+"/"+path)
	})
}

func (is *Issuer) list(ctx context.Context, path string) (*api.Secret, error) {
	return is.call(ctx, func(c *api.Client) (*api.Secret, error) {
		return c.Logical().ListWithContext(ctx, is.cfg.Mount+"/"+path)
	})
}

// answered says whether err is the engine's answer with the status, and has the words.
func answered(err error, status int, words string) bool {
	var r *api.ResponseError
	return errors.As(err, &r) && r.StatusCode == status && (words == "" || strings.Contains(strings.Join(r.Errors, " "), words))
}

// failed gives an error of the client its kind. What the engine refuses for its content stays what it is: a fault of
// ours or of the engine's configuration, that a repetition does not heal.
func (is *Issuer) failed(op string, err error) error {
	var r *api.ResponseError
	switch {
	case err == nil:
		return nil
	case !errors.As(err, &r):
		return problem.Unavailable("The PKI engine at %s does not answer.", is.cfg.Address).Because(err)
	case r.StatusCode == http.StatusForbidden:
		return problem.Unavailable("The PKI engine refuses our token.").Hint("Give the token the policy that openthings issuer policy prints.").Because(err)
	case r.StatusCode >= 500 || slices.Contains([]int{http.StatusTooManyRequests, http.StatusPreconditionFailed}, r.StatusCode):
		return problem.Unavailable("The PKI engine cannot answer now.").Because(err)
	}
	return fmt.Errorf("openbao: %s: %w", op, err)
}

// Work keeps the token alive until ctx ends: it is renewed at half of its life. A token that cannot be renewed is told
// once it is refused; the file is read again then.
func (is *Issuer) Work(ctx context.Context) error {
	for {
		next, err := is.renew(ctx)
		if err != nil && ctx.Err() == nil {
			is.cfg.Log.WarnContext(ctx, "the token of the PKI engine could not be renewed", "err", err)
		}
		timer := is.cfg.Clock.NewTimer(next)
		select {
		case <-timer.C:
		case <-ctx.Done():
			timer.Stop()
			return nil
		}
	}
}

// How often a token is renewed at most, and when one that has no end, or could not be renewed, is looked at again.
const (
	renewSoon = time.Minute
	renewLate = time.Hour
)

// renew renews the token if it has an end, and says when to come again.
func (is *Issuer) renew(ctx context.Context) (time.Duration, error) {
	s, err := is.call(ctx, func(c *api.Client) (*api.Secret, error) {
		return c.Logical().ReadWithContext(ctx, "auth/token/lookup-self")
	})
	if err != nil {
		return renewSoon, err
	}
	if left := number(s, "ttl"); left == 0 || s.Data["renewable"] != true {
		return renewLate, nil
	}
	s, err = is.call(ctx, func(c *api.Client) (*api.Secret, error) {
		return c.Logical().WriteWithContext(ctx, "auth/token/renew-self", map[string]any{})
	})
	if err != nil || s == nil || s.Auth == nil {
		return renewSoon, err
	}
	return max(renewSoon, min(renewLate, time.Duration(s.Auth.LeaseDuration)*time.Second/2)), nil
}

// text and number are members of an answer; what is absent is empty.
func text(s *api.Secret, name string) string {
	if s == nil {
		return ""
	}
	v, _ := s.Data[name].(string)
	return v
}

func number(s *api.Secret, name string) int64 {
	if s == nil {
		return 0
	}
	n, _ := s.Data[name].(json.Number)
	i, _ := n.Int64()
	return i
}

// SPDX-License-Identifier: AGPL-3.0-only

package problem

import (
	"errors"
	"fmt"
	"strings"
	"testing"
)

func TestOf(t *testing.T) {
	cause := errors.New("dial tcp: refused")
	p := Forbidden("update.floor", "version %d is too old", 1).Hint("sign a newer one").At("body.version").Because(cause)
	wrapped := fmt.Errorf("upload: %w", p)
	if got := Of(wrapped); got != p || !Is(wrapped, KindForbidden) || !errors.Is(wrapped, cause) {
		t.Errorf("got %+v", got)
	}
	for _, want := range []string{"version 1 is too old", "update.floor", "sign a newer one", "dial tcp"} {
		if !strings.Contains(p.Error(), want) {
			t.Errorf("%q lacks %q", p.Error(), want)
		}
	}
	if len(p.Fields) != 1 || p.Fields[0].Message != "version 1 is too old" {
		t.Errorf("fields %+v", p.Fields)
	}
	inside := Of(cause)
	if inside.Kind != KindInternal || strings.Contains(inside.Text, "dial") || !errors.Is(inside, cause) {
		t.Errorf("an unknown error shows %q", inside.Text)
	}
	if Of(nil) != nil || Is(nil, KindInternal) {
		t.Error("no error became a problem")
	}
}

// Every kind has its row: a forgotten one would answer with status 0.
func TestKinds(t *testing.T) {
	for _, p := range []*Error{
		Invalid("x"), Unauthenticated("x"), Forbidden("r", "x"), NotFound("x"), Conflict("x"), Precondition("x"), TooLarge("x"),
		Unprocessable("x"), Limited("x"), Unavailable("x"), Of(errors.New("x")),
	} {
		k, ok := Kinds[p.Kind]
		if !ok || k.Status < 400 || k.Exit == 0 || k.Title == "" {
			t.Errorf("%s: %+v", p.Kind, k)
		}
		if (p.Kind == KindForbidden) != (k.Exit == 3) {
			t.Errorf("%s ends with exit code %d: 3 is for refusals by policy alone", p.Kind, k.Exit)
		}
	}
	if len(Kinds) != 11 {
		t.Errorf("%d kinds: add the new one to this test", len(Kinds))
	}
}

func TestOr(t *testing.T) {
	for want, words := range map[string][]Kind{"": nil, "a": {"a"}, "a or b": {"a", "b"}, "a, b or c": {"a", "b", "c"}} {
		if got := Or(words); got != want {
			t.Errorf("%q, want %q", got, want)
		}
	}
}

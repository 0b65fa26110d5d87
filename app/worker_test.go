// SPDX-License-Identifier: AGPL-3.0-only

package app

import (
	"context"
	"errors"
	"fmt"
	"testing"
)

// What the end of the house cuts off in the background does not make the platform exit as if it had failed.
func TestAWorkerThatIsCutOffDidNotFail(t *testing.T) {
	over, end := context.WithCancel(t.Context())
	end()
	broken := errors.New("the last write did not reach the disk")
	for _, c := range []struct {
		what string
		ctx  context.Context
		err  error
		want error
	}{
		{"cut off in a question", over, fmt.Errorf("tenants: %w", context.Canceled), nil},
		{"done", over, nil, nil},
		{"another failure at the end", over, broken, broken},
		{"cut off by something else", t.Context(), context.Canceled, context.Canceled},
	} {
		if err := (worker{"w", func(context.Context) error { return c.err }}).until(c.ctx); !errors.Is(err, c.want) {
			t.Errorf("%s: %v", c.what, err)
		}
	}
}

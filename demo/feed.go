// SPDX-License-Identifier: AGPL-3.0-only

package demo

import (
	"context"
	"io"
)

// Import gives the platform a feed of vulnerability records, as a tool of the tenant's would, and waits until it is read.
func (f *Fleet) Import(ctx context.Context, name string, feed io.Reader) error {
	return f.w.post(ctx, "/v1/feeds/"+name, feed, nil)
}

// SPDX-License-Identifier: AGPL-3.0-only

package api

import (
	"io"
	"net/http"
	"time"
)

// streamWrite is how long the line may stand still.
const streamWrite = 30 * time.Second

// Stream gives each write of a long answer its own deadline: a download may last, but not stand still.
func Stream(w http.ResponseWriter) io.Writer {
	return &stream{w: w, out: http.NewResponseController(w)}
}

type stream struct {
	w   io.Writer
	out *http.ResponseController
}

func (s *stream) Write(b []byte) (int, error) {
	_ = s.out.SetWriteDeadline(time.Now().Add(streamWrite)) // a recorder of tests has none
	return s.w.Write(b)
}

package snapshot

import "io"

// chunkBytes is how much of a snapshot goes into one message: a small part of gRPC's limit of 4 MiB.
const chunkBytes = 256 << 10

// ChunkWriter sends what is written to it in messages of one size. [ChunkWriter.Flush] sends the rest.
type ChunkWriter struct {
	// Send sends one message, and may keep it.
	Send    func([]byte) error
	pending []byte
}

// Write implements io.Writer.
func (w *ChunkWriter) Write(p []byte) (int, error) {
	written := len(p)
	for len(p) > 0 {
		n := min(len(p), chunkBytes-len(w.pending))
		w.pending = append(w.pending, p[:n]...)
		p = p[n:]
		if len(w.pending) == chunkBytes {
			if err := w.Flush(); err != nil {
				return 0, err
			}
		}
	}
	return written, nil
}

// Flush sends what was written and not sent.
func (w *ChunkWriter) Flush() error {
	if len(w.pending) == 0 {
		return nil
	}
	err := w.Send(w.pending)
	w.pending = nil // gRPC may keep what was sent
	return err
}

// ChunkReader reads the bytes of a stream of messages.
type ChunkReader struct {
	// Receive returns the next message, or io.EOF.
	Receive func() ([]byte, error)
	pending []byte
}

// Read implements io.Reader.
func (r *ChunkReader) Read(p []byte) (int, error) {
	for len(r.pending) == 0 {
		data, err := r.Receive()
		if err != nil {
			return 0, err // io.EOF at the end of the stream
		}
		r.pending = data
	}
	n := copy(p, r.pending)
	r.pending = r.pending[n:]
	return n, nil
}

var (
	_ io.Writer = (*ChunkWriter)(nil)
	_ io.Reader = (*ChunkReader)(nil)
)

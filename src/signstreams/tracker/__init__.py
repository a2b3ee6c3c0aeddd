"""An offline tracker of one person's body, face and hands, on MediaPipe's models, without MediaPipe."""

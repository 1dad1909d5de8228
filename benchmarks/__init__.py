"""Speed and memory as ratios to a plain forward pass, measured side by side in one run."""

"""When the system runs by itself: schedules, and sensors that turn failures into alerts."""

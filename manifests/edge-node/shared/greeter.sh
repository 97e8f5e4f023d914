while true; do
  echo "$GREETING" | tee -a /greetings/log
  sleep 60
done
